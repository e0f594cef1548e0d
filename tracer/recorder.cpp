// SPDX-License-Identifier: Apache-2.0
#include "tracer/recorder.h"

#include <algorithm>

#include "depthkv/ops.h"
#include "kernels/column_sums/column_sums.h"
#include "kernels/parallel.h"

namespace depthkv {
namespace {

std::size_t to_size(std::int64_t value) { return static_cast<std::size_t>(value); }

}  // namespace

Recorder::Recorder(TraceWriter& writer, const Model& model, const Segments& segments, Options options)
    : writer_(writer),
      model_(model),
      segments_(segments),
      options_(std::move(options)),
      layers_(model.card().layers.size()) {
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const LayerShape& shape = model.card().layers[l];
    if (records(Channel::column_sums))
      for (auto& part : layers_[l].column_sums) part.resize(to_size(shape.query_heads * segments.prompt_end));
    if (records(Channel::query_mean) || records(Channel::query_second_moment))
      layers_[l].queries.assign(kParts, Moments(shape.query_heads, shape.head_dim));
  }
}

void Recorder::take(const LayerBlock& block) {
  if (block.channel == Channel::attention) {
    if (records(Channel::column_sums)) add_column_sums(block);
    if (options_.attention[to_size(block.layer)])
      writer_.write_attention(block.layer, block.first, block.data, block.width);
    return;
  }
  if (block.channel == Channel::queries && !block.unrotated.empty()) add_moments(block);
  if (block.channel == Channel::values && records(Channel::value_output_norms)) write_norms(block);
  if (records(block.channel)) writer_.write_rows(block.channel, block.layer, block.first, block.data);
}

template <class Body>
void Recorder::for_each_part(const LayerBlock& block, Body body) const {
  const std::int64_t bounds[kParts + 1] = {0, segments_.context.end, segments_.prompt_end};
  for (std::size_t part = 0; part < kParts; ++part) {
    const std::int64_t begin = std::max(block.first, bounds[part]);
    const std::int64_t end = std::min(block.first + block.rows, bounds[part + 1]);
    if (begin < end) body(part, begin - block.first, end - begin);
  }
}

// Rows of the prompt see columns of the prompt only.
void Recorder::add_column_sums(const LayerBlock& block) {
  const std::int64_t heads = model_.card().layers[to_size(block.layer)].query_heads;
  const View rows{block.data.data(), heads, block.rows, block.width, block.rows * block.width, block.width};
  for_each_part(block, [&](std::size_t part, std::int64_t first, std::int64_t count) {
    const std::int64_t columns = std::min(block.width, segments_.prompt_end);
    std::vector<double>& sums = layers_[to_size(block.layer)].column_sums[part];
    parallel_for(heads, options_.threads, [&](std::int64_t head) {
      const View mine = rows.head_range(head, 1).row_range(first, count).first_columns(columns);
      cpu::add_rows(mine, std::span(sums).subspan(to_size(head * segments_.prompt_end), to_size(columns)));
    });
  });
}

void Recorder::add_moments(const LayerBlock& block) {
  const LayerShape& shape = model_.card().layers[to_size(block.layer)];
  const std::size_t width = to_size(std::int64_t{shape.query_heads} * shape.head_dim);
  for_each_part(block, [&](std::size_t part, std::int64_t first, std::int64_t count) {
    const auto rows = block.unrotated.subspan(to_size(first) * width, to_size(count) * width);
    parallel_for(shape.query_heads, options_.threads,
                 [&](std::int64_t head) { layers_[to_size(block.layer)].queries[part].add(head, rows); });
  });
}

void Recorder::write_norms(const LayerBlock& block) {
  constexpr std::int64_t kRows = 64;  // of a thread at a time
  const LayerShape& shape = model_.card().layers[to_size(block.layer)];
  const std::int64_t d = shape.head_dim;
  const View values{block.data.data(), shape.kv_heads, block.rows, d, d, shape.kv_heads * d};
  const Tensor weights = model_.output_projection(block.layer);
  scratch_.resize(to_size(block.rows * shape.query_heads * 2));
  parallel_for((block.rows + kRows - 1) / kRows, options_.threads, [&](std::int64_t i) {
    const std::int64_t first = i * kRows;
    const std::int64_t count = std::min(kRows, block.rows - first);
    const Tensor norms = ops_for(Device::cpu).projected_norms(values.row_range(first, count), weights.view());
    for (std::int64_t head = 0; head < shape.query_heads; ++head)
      for (std::int64_t r = 0; r < count; ++r)
        std::ranges::copy(norms.row(head, r), scratch_.begin() + ((first + r) * shape.query_heads + head) * 2);
  });
  writer_.write_rows(Channel::value_output_norms, block.layer, block.first, scratch_);
}

void Recorder::finish() {
  for (int layer = 0; layer < static_cast<int>(layers_.size()); ++layer) {
    if (records(Channel::column_sums)) finish_column_sums(layer);
    if (!layers_[to_size(layer)].queries.empty()) finish_moments(layer);
  }
}

void Recorder::finish_column_sums(int layer) {
  const auto& [context, rest] = layers_[to_size(layer)].column_sums;
  scratch_.clear();
  for (const double x : context) scratch_.push_back(static_cast<float>(x));
  for (std::size_t i = 0; i < context.size(); ++i) scratch_.push_back(static_cast<float>(context[i] + rest[i]));
  writer_.write_whole(Channel::column_sums, layer, scratch_);
}

void Recorder::finish_moments(int layer) {
  const LayerShape& shape = model_.card().layers[to_size(layer)];
  std::vector<Moments>& parts = layers_[to_size(layer)].queries;
  parts[1] += parts[0];
  const std::size_t means = to_size(std::int64_t{shape.query_heads} * shape.head_dim);
  for (const Channel channel : {Channel::query_mean, Channel::query_second_moment}) {
    if (!records(channel)) continue;
    const std::size_t size = channel == Channel::query_mean ? means : means * to_size(shape.head_dim);
    scratch_.resize(2 * size);
    for (const Cut cut : {Cut::context, Cut::prompt}) {
      Moments& moments = parts[static_cast<std::size_t>(cut)];
      const auto out = std::span(scratch_).subspan(static_cast<std::size_t>(cut) * size, size);
      channel == Channel::query_mean ? moments.mean(segments_.at(cut), out) : moments.second(segments_.at(cut), out);
    }
    writer_.write_whole(channel, layer, scratch_);
  }
}

}  // namespace depthkv
