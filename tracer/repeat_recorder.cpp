// SPDX-License-Identifier: Apache-2.0
#include "tracer/repeat_recorder.h"

#include <algorithm>
#include <cmath>

#include "depthkv/ops.h"
#include "kernels/cuda_backend.h"
#include "kernels/parallel.h"
#include "tracer/index.h"
#include "tracer/parts.h"

namespace depthkv {
namespace {

// NaN stays.
void raise_to(float& most, float value) {
  if (std::isnan(value) || value > most) most = value;
}

// Softmax rows at positions first, first + 1, ... of the keys, each weighted in several ways: weights [W][row].
struct WeightedRows {
  View queries;
  HalfRows keys;
  std::int64_t first = 0;
  SoftmaxSpec softmax;
  std::vector<std::vector<float>> weights;
  std::optional<int> device = {};  // that has queries and keys
};

std::vector<float> maxima_on_device(const WeightedRows& all) {
  const UseDevice on(*all.device);
  std::vector<float> weights;
  for (const auto& rows : all.weights) weights.insert(weights.end(), rows.begin(), rows.end());
  std::vector<float> maxima(all.weights.size() * to_size(all.queries.heads * all.keys.rows));
  ops_for(Device::cuda).attention_maxima(all.queries, all.keys, all.first, all.softmax, weights, maxima);
  return maxima;
}

std::shared_ptr<const std::uint16_t> gather_there(int device, std::span<const HalfRows> pieces) {
  const UseDevice on(device);
  return cuda_gather(pieces);
}

// Their maxima, [W][query head][key], by KV heads and bands of rows side by side.
std::vector<float> maxima_of(const WeightedRows& all, int threads) {
  if (all.device) return maxima_on_device(all);
  const std::int64_t group = all.queries.heads / all.keys.heads;
  const std::int64_t bands = (all.queries.rows + kTaskRows - 1) / kTaskRows;
  std::vector<std::vector<float>> parts(to_size(bands * all.keys.heads));
  parallel_for(bands * all.keys.heads, threads, [&](std::int64_t task) {
    const std::int64_t g = task % all.keys.heads;
    const std::int64_t first = task / all.keys.heads * kTaskRows;
    const std::int64_t count = std::min(kTaskRows, all.queries.rows - first);
    std::vector<float> weights;
    for (const auto& rows : all.weights)
      weights.insert(weights.end(), rows.begin() + first, rows.begin() + first + count);
    parts[to_size(task)].resize(all.weights.size() * to_size(group * all.keys.rows));
    ops_for(Device::cpu)
        .attention_maxima(all.queries.head_range(g * group, group).row_range(first, count), all.keys.head(g),
                          all.first + first, all.softmax, weights, parts[to_size(task)]);
  });
  const std::size_t size = to_size(group * all.keys.rows);  // of one KV head
  std::vector<float> maxima(all.weights.size() * size * to_size(all.keys.heads));
  for (std::size_t task = 0; task < parts.size(); ++task) {
    for (std::size_t w = 0; w < all.weights.size(); ++w) {
      float* to = maxima.data() + (w * to_size(all.keys.heads) + task % to_size(all.keys.heads)) * size;
      for (std::size_t i = 0; i < size; ++i) raise_to(to[i], parts[task][w * size + i]);
    }
  }
  return maxima;
}

// The keys of some ranges of positions.
std::vector<HalfRows> pieces_of(const HalfRows& keys, std::initializer_list<Span> ranges) {
  std::vector<HalfRows> pieces;
  for (const Span& range : ranges)
    pieces.push_back({keys.data + range.begin * keys.row_stride, keys.heads, range.end - range.begin, keys.columns,
                      keys.row_stride});
  return pieces;
}

// Their rows, one after the other.
HalfRows gather(std::span<const HalfRows> pieces, std::vector<std::uint16_t>& storage) {
  const std::int64_t row = pieces.front().heads * pieces.front().columns;
  storage.clear();
  for (const HalfRows& piece : pieces) {
    for (std::int64_t j = 0; j < piece.rows; ++j) {
      const std::uint16_t* from = piece.data + j * piece.row_stride;
      storage.insert(storage.end(), from, from + row);
    }
  }
  return {storage.data(), pieces.front().heads, static_cast<std::int64_t>(storage.size()) / row, pieces.front().columns,
          row};
}

}  // namespace

RepeatRecorder::RepeatRecorder(TraceWriter& writer, const ModelCard& model, const Segments& segments,
                               const Repetition& repetition, int threads)
    : writer_(writer), model_(model), segments_(segments), repetition_(repetition), threads_(threads) {
  for (const LayerShape& layer : model.layers)
    maxima_.emplace_back(kRepeats.size() * to_size(layer.query_heads * segments.prompt_end));
}

// `heads`: [query head][width], the maxima of as many positions from `position` on.
void RepeatRecorder::raise(int layer, Repeat repeat, std::int64_t position, std::span<const float> heads,
                           std::int64_t width) {
  const std::size_t count = heads.size() / to_size(width);
  float* to = maxima_[to_size(layer)].data() + to_size(segments_.prompt_end) * count * static_cast<std::size_t>(repeat);
  for (std::size_t h = 0; h < count; ++h, to += segments_.prompt_end)
    for (std::int64_t j = 0; j < width; ++j) raise_to(to[position + j], heads[h * to_size(width) + to_size(j)]);
}

void RepeatRecorder::take(std::size_t passage, const LayerBlock& block) {
  const LayerShape& shape = model_.layers[to_size(block.layer)];
  const std::optional<DeviceRows>& there = block.on_device;
  const Rows rows = there ? Rows{there->queries, there->keys, there->device}
                          : Rows{by_head(block, shape.query_heads, shape.head_dim), block.cached_keys, std::nullopt};
  take_chunk(passage, block, rows);
  take_cache(passage, block, rows);
}

// The first keys, the chunk's and those fed so far stand side by side, so that rows are causal among them, too.
void RepeatRecorder::take_chunk(std::size_t passage, const LayerBlock& block, const Rows& seen) {
  const Span chunk = repetition_.chunks[passage];
  const std::int64_t behind = repetition_.passages[passage].behind;
  const std::int64_t sinks = std::min(kRepeatSinks, chunk.begin);
  const std::int64_t width = chunk.end - chunk.begin;
  const std::vector<HalfRows> pieces = pieces_of(seen.keys, {{0, sinks}, chunk, {behind, block.first + block.rows}});
  const std::shared_ptr<const std::uint16_t> there = seen.device ? gather_there(*seen.device, pieces) : nullptr;
  WeightedRows rows{
      .queries = seen.queries,
      .keys = there ? HalfRows{there.get(), seen.keys.heads, sinks + width + block.first + block.rows - behind,
                               seen.keys.columns, seen.keys.row_stride}
                    : gather(pieces, keys_),
      .first = sinks + width + block.first - behind,
      .softmax = softmax_of(model_, block.layer),
      .weights = {std::vector<float>(to_size(block.rows), 1.0F), {}},
      .device = seen.device};
  rows.softmax.window = 0;
  for (const float norm : block.input_norms) rows.weights[1].push_back(norm > 0 ? 1 / norm : 0.0F);
  const std::vector<float> maxima = maxima_of(rows, threads_);
  std::vector<float> heads;
  const auto key = maxima.begin() + sinks;
  for (std::int64_t i = 0; i < 2 * seen.queries.heads; ++i)
    heads.insert(heads.end(), key + i * rows.keys.rows, key + i * rows.keys.rows + width);
  const auto all = std::span<const float>(heads);
  raise(block.layer, Repeat::chunk, chunk.begin, all.first(all.size() / 2), width);
  raise(block.layer, Repeat::chunk_per_input, chunk.begin, all.subspan(all.size() / 2), width);
}

// Rows that ask for the chunk don't count.
void RepeatRecorder::take_cache(std::size_t passage, const LayerBlock& block, const Rows& seen) {
  const Span chunk = repetition_.chunks[passage];
  const Passage& fed = repetition_.passages[passage];
  const std::int64_t asking = static_cast<std::int64_t>(fed.tokens.size()) - (chunk.end - chunk.begin);
  const std::int64_t skipped = std::clamp<std::int64_t>(fed.behind + asking - block.first, 0, block.rows);
  if (skipped == block.rows) return;
  const WeightedRows rows{.queries = seen.queries.row_range(skipped, block.rows - skipped),
                          .keys = seen.keys,
                          .first = block.first + skipped,
                          .softmax = softmax_of(model_, block.layer),
                          .weights = {std::vector<float>(to_size(block.rows - skipped), 1.0F)},
                          .device = seen.device};
  const std::vector<float> maxima = maxima_of(rows, threads_);
  std::vector<float> heads;
  const std::int64_t width = segments_.context.end;
  for (std::int64_t h = 0; h < seen.queries.heads; ++h) {
    const auto from = maxima.begin() + h * rows.keys.rows;
    heads.insert(heads.end(), from, from + width);
  }
  raise(block.layer, Repeat::cache, 0, heads, width);
}

void RepeatRecorder::finish() {
  for (std::size_t layer = 0; layer < maxima_.size(); ++layer)
    writer_.write_whole(Channel::repeat_max, static_cast<int>(layer), maxima_[layer]);
}

}  // namespace depthkv
