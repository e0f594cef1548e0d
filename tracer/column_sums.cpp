// SPDX-License-Identifier: Apache-2.0
#include "tracer/column_sums.h"

#include <algorithm>

#include "kernels/column_sums/column_sums.h"
#include "kernels/parallel.h"
#include "tracer/index.h"

namespace depthkv {
namespace {

struct Task {
  std::size_t part = 0;
  std::int64_t first = 0;
  std::int64_t count = 0;
  std::int64_t kv_head = 0;
  std::vector<double> sums;  // [group][position]
};

std::vector<Task> tasks_of(std::span<const PartRows> parts, std::int64_t kv_heads) {
  std::vector<Task> tasks;
  for (const PartRows& part : parts) {
    for (std::int64_t first = 0; first < part.count; first += kTaskRows)
      for (std::int64_t g = 0; g < kv_heads; ++g)
        tasks.push_back({part.part, part.first + first, std::min(kTaskRows, part.count - first), g, {}});
  }
  return tasks;
}

}  // namespace

ColumnSums::ColumnSums(const ModelCard& model, const Segments& segments, int threads)
    : model_(model), segments_(segments), threads_(threads), layers_(model.layers.size()) {
  for (std::size_t l = 0; l < layers_.size(); ++l)
    for (auto& part : layers_[l]) part.resize(to_size(model.layers[l].query_heads * segments.prompt_end));
}

std::span<double> ColumnSums::sums(int layer, std::size_t part, std::int64_t head) {
  return std::span(layers_[to_size(layer)][part])
      .subspan(to_size(head * segments_.prompt_end), to_size(segments_.prompt_end));
}

// Rows of the prompt see columns of the prompt only.
void ColumnSums::add(int layer, std::int64_t first, std::span<const View> rows) {
  const std::int64_t columns = std::min(rows.front().columns, segments_.prompt_end);
  for (const PartRows& part : parts_of(segments_, first, rows.front().rows)) {
    std::int64_t heads_before = 0;
    for (const View& heads : rows) {
      const View mine = heads.row_range(part.first, part.count).first_columns(columns);
      parallel_for(heads.heads, threads_, [&](std::int64_t head) {
        cpu::add_rows(mine.head_range(head, 1), sums(layer, part.part, heads_before + head).first(to_size(columns)));
      });
      heads_before += heads.heads;
    }
  }
}

void ColumnSums::add(int layer, std::int64_t first, const View& queries, const HalfRows& keys) {
  const std::int64_t group = queries.heads / keys.heads;
  std::vector<Task> tasks = tasks_of(parts_of(segments_, first, queries.rows), keys.heads);
  parallel_for(static_cast<std::int64_t>(tasks.size()), threads_, [&](std::int64_t i) {
    Task& task = tasks[to_size(i)];
    const std::int64_t position = first + task.first;
    const HalfRows seen = keys.first_rows(position + task.count);
    task.sums.resize(to_size(group * seen.rows));
    ops_for(Device::cpu)
        .attention_sums(queries.head_range(task.kv_head * group, group).row_range(task.first, task.count),
                        seen.head(task.kv_head), position, softmax_of(model_, layer), task.sums);
  });
  for (const Task& task : tasks) add(layer, task.part, task.kv_head * group, group, task.sums);
}

void ColumnSums::add(int layer, std::int64_t first, const DeviceRows& rows) {
  const UseDevice on(rows.device);
  std::vector<double> received;
  for (const PartRows& part : parts_of(segments_, first, rows.queries.rows)) {
    const std::int64_t position = first + part.first;
    const HalfRows seen = rows.keys.first_rows(position + part.count);
    received.assign(to_size(rows.queries.heads * seen.rows), 0.0);
    ops_for(Device::cuda)
        .attention_sums(rows.queries.row_range(part.first, part.count), seen, position, softmax_of(model_, layer),
                        received);
    add(layer, part.part, 0, rows.queries.heads, received);
  }
}

void ColumnSums::add(int layer, std::size_t part, std::int64_t first_head, std::int64_t heads,
                     std::span<const double> received) {
  const std::size_t seen = received.size() / to_size(heads);
  for (std::int64_t h = 0; h < heads; ++h) {
    const auto to = sums(layer, part, first_head + h);
    for (std::size_t j = 0; j < seen; ++j) to[j] += received[to_size(h) * seen + j];
  }
}

void ColumnSums::write_to(int layer, std::vector<float>& out) const {
  const auto& [context, rest] = layers_[to_size(layer)];
  out.clear();
  for (const double x : context) out.push_back(static_cast<float>(x));
  for (std::size_t i = 0; i < context.size(); ++i) out.push_back(static_cast<float>(context[i] + rest[i]));
}

}  // namespace depthkv
