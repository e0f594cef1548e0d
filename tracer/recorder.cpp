// SPDX-License-Identifier: Apache-2.0
#include "tracer/recorder.h"

#include <algorithm>
#include <numeric>

#include "depthkv/ops.h"
#include "kernels/half.h"
#include "kernels/parallel.h"
#include "tracer/index.h"
#include "tracer/parts.h"

namespace depthkv {
Recorder::Recorder(TraceWriter& writer, const Model& model, const Segments& segments, Options options)
    : writer_(writer),
      model_(model),
      segments_(segments),
      options_(std::move(options)),
      queries_(model.card().layers.size()) {
  if (records(Channel::column_sums)) column_sums_.emplace(model.card(), segments, options_.threads);
  if (records(Channel::query_mean) || records(Channel::query_second_moment))
    for (std::size_t l = 0; l < queries_.size(); ++l)
      queries_[l].assign(kPromptParts,
                         Moments(shape(static_cast<int>(l)).query_heads, shape(static_cast<int>(l)).head_dim));
}

void Recorder::take(const LayerBlock& block) {
  if (block.channel == Channel::attention) {
    const View rows{block.data.data(), shape(block.layer).query_heads, block.rows,
                    block.width,       block.rows * block.width,       block.width};
    return take_matrix(block.layer, block.first, {&rows, 1});
  }
  if (block.channel == Channel::queries) {
    if (!block.unrotated.empty()) add_moments(block);
    if (!block.cached_keys.empty()) recompute_attention(block);
    if (block.on_device && column_sums_) column_sums_->add(block.layer, block.first, *block.on_device);
  }
  if (block.channel == Channel::values && records(Channel::value_output_norms)) write_norms(block);
  if (records(block.channel)) writer_.write_rows(block.channel, block.layer, block.first, block.data);
}

void Recorder::take_matrix(int layer, std::int64_t first, std::span<const View> rows) {
  if (column_sums_) column_sums_->add(layer, first, rows);
  if (options_.attention[to_size(layer)]) writer_.write_attention(layer, first, rows);
}

// Rows are kept only where the matrix is written.
void Recorder::recompute_attention(const LayerBlock& block) {
  const LayerShape& heads = shape(block.layer);
  const View queries = by_head(block, heads.query_heads, heads.head_dim);
  if (!options_.attention[to_size(block.layer)]) {
    if (column_sums_) column_sums_->add(block.layer, block.first, queries, block.cached_keys);
    return;
  }
  constexpr std::int64_t kRows = 256;  // of a task
  const SoftmaxSpec softmax = softmax_of(model_.card(), block.layer);
  const std::int64_t bands = (block.rows + kRows - 1) / kRows;
  std::vector<Tensor> matrices(to_size(bands * heads.kv_heads));
  parallel_for(bands * heads.kv_heads, options_.threads, [&](std::int64_t task) {
    const std::int64_t g = task % heads.kv_heads;
    const std::int64_t first = task / heads.kv_heads * kRows;
    const std::int64_t count = std::min(kRows, block.rows - first);
    std::vector<std::int32_t> positions(to_size(count));
    std::iota(positions.begin(), positions.end(), static_cast<std::int32_t>(block.first + first));
    Tensor keys(1, block.first + first + count, heads.head_dim);
    for (std::int64_t j = 0; j < keys.rows(); ++j) from_half(block.cached_keys.row(g, j), keys.row(0, j));
    matrices[to_size(task)] =
        ops_for(Device::cpu)
            .attention_rows(queries.head_range(g * heads.group(), heads.group()).row_range(first, count), keys.view(),
                            positions, softmax);
  });
  for (std::int64_t band = 0; band < bands; ++band) {
    std::vector<View> rows;
    for (std::int64_t g = 0; g < heads.kv_heads; ++g)
      rows.push_back(matrices[to_size(band * heads.kv_heads + g)].view());
    take_matrix(block.layer, block.first + band * kRows, rows);
  }
}

void Recorder::add_moments(const LayerBlock& block) {
  const LayerShape& heads = shape(block.layer);
  const std::size_t width = to_size(std::int64_t{heads.query_heads} * heads.head_dim);
  for (const PartRows& part : parts_of(segments_, block.first, block.rows)) {
    const auto rows = block.unrotated.subspan(to_size(part.first) * width, to_size(part.count) * width);
    parallel_for(heads.query_heads, options_.threads,
                 [&](std::int64_t head) { queries_[to_size(block.layer)][part.part].add(head, rows); });
  }
}

void Recorder::write_norms(const LayerBlock& block) {
  constexpr std::int64_t kRows = 96;  // of a thread at a time
  const std::int64_t heads = shape(block.layer).query_heads;
  const View values = by_head(block, shape(block.layer).kv_heads, shape(block.layer).head_dim);
  const Tensor weights = model_.output_projection(block.layer);
  scratch_.resize(to_size(block.rows * heads * 2));
  parallel_for((block.rows + kRows - 1) / kRows, options_.threads, [&](std::int64_t i) {
    const std::int64_t first = i * kRows;
    const std::int64_t count = std::min(kRows, block.rows - first);
    const Tensor norms = ops_for(Device::cpu).projected_norms(values.row_range(first, count), weights.view());
    for (std::int64_t head = 0; head < heads; ++head)
      for (std::int64_t r = 0; r < count; ++r)
        std::ranges::copy(norms.row(head, r), scratch_.begin() + ((first + r) * heads + head) * 2);
  });
  writer_.write_rows(Channel::value_output_norms, block.layer, block.first, scratch_);
}

void Recorder::finish() {
  for (int layer = 0; layer < static_cast<int>(queries_.size()); ++layer) {
    if (column_sums_) {
      column_sums_->write_to(layer, scratch_);
      writer_.write_whole(Channel::column_sums, layer, scratch_);
    }
    if (!queries_[to_size(layer)].empty()) finish_moments(layer);
  }
}

void Recorder::finish_moments(int layer) {
  const LayerShape& heads = shape(layer);
  std::vector<Moments>& parts = queries_[to_size(layer)];
  parts[1] += parts[0];
  const std::size_t means = to_size(std::int64_t{heads.query_heads} * heads.head_dim);
  for (const Channel channel : {Channel::query_mean, Channel::query_second_moment}) {
    if (!records(channel)) continue;
    const std::size_t size = channel == Channel::query_mean ? means : means * to_size(heads.head_dim);
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
