// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention_maxima/attention_maxima.h"
#include "kernels/attention_maxima/device.cuh"

namespace depthkv::cuda {

void attention_maxima(const DeviceAttention& in, SoftmaxSpec spec, DeviceWeights weights, float* scales, float* maxima,
                      void* stream) {
  if (in.queries.rows == 0) return;
  const AttentionBlock block = attention_block(in, spec);
  const auto heads = static_cast<unsigned>(in.queries.heads);
  float* tops = scales;
  float* inverses = scales + in.queries.heads * in.queries.rows;
  const LaunchShape by_rows{.grid = {held_blocks(block.rows), heads}, .block = {kTileThreads}, .stream = stream};
  launch(by_rows, row_tops_kernel, block, tops);
  launch(by_rows, row_inverses_kernel, block, tops, inverses);
  const auto pairs = static_cast<unsigned>((weights.count + kWeightings - 1) / kWeightings);
  launch({.grid = {held_blocks(block.first + block.rows), heads, pairs}, .block = {kTileThreads}, .stream = stream},
         key_maxima_kernel, block, RowWeights{tops, inverses, weights.values, static_cast<int>(weights.count)}, maxima,
         in.keys.rows);
}

void attention_maxima(const View& queries, const HalfRows& keys, std::int64_t first, SoftmaxSpec spec,
                      std::span<const float> weights, std::span<float> maxima) {
  if (queries.rows == 0) return;
  const std::int64_t group = queries.heads / keys.heads;
  const std::int64_t weightings = static_cast<std::int64_t>(weights.size()) / queries.rows;
  const auto tokens = static_cast<std::size_t>(keys.rows);
  in_parts(keys.heads, 1, [&](Lane& lane, std::int64_t head, std::int64_t heads) {
    const View own = queries.head_range(head * group, heads * group);
    const DeviceAttention in = upload(lane, own, keys.head_range(head, heads), first);
    std::vector<float*> parts;
    for (std::int64_t w = 0; w < weightings; ++w)
      for (std::int64_t h = head * group; h < (head + heads) * group; ++h)
        parts.push_back(maxima.data() + static_cast<std::size_t>(w * queries.heads + h) * tokens);
    float* there = lane.upload_rows(std::vector<const float*>(parts.begin(), parts.end()), tokens);
    attention_maxima(in, spec, {lane.upload(weights), weightings},
                     lane.room<float>(static_cast<std::size_t>(2 * own.heads * own.rows)), there, lane.stream());
    const auto found = lane.download(there, parts.size() * tokens);
    lane.wait();
    for (std::size_t i = 0; i < parts.size(); ++i) std::ranges::copy(found.subspan(i * tokens, tokens), parts[i]);
  });
}

}  // namespace depthkv::cuda
