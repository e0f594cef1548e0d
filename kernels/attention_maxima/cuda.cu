// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention_maxima/attention_maxima.h"
#include "kernels/attention_maxima/device.cuh"

namespace depthkv::cuda {
namespace {

// maxima [kind][head][key] of the queries' heads
void raise(Lane& lane, const DeviceAttention& in, SoftmaxSpec spec, std::span<const float> weights, std::int64_t kinds,
           float* maxima) {
  const auto heads = static_cast<unsigned>(in.queries.heads);
  const std::int64_t rows = in.queries.rows;
  const float* there = lane.upload(weights);
  auto* normalisers = lane.room<float>(static_cast<std::size_t>(in.queries.heads * rows));
  const AttentionBlock block = normalise_rows(in, spec, normalisers, lane.stream());
  const LaunchShape shape{
      .grid = {blocks_for(block.first + rows), heads}, .block = {kTileThreads}, .stream = lane.stream()};
  const std::int64_t size = in.queries.heads * in.keys.rows;
  for (std::int64_t kind = 0; kind < kinds; kind += 2) {
    const Maxima of{there + kind * rows, maxima + kind * size, in.keys.rows, size};
    if (kind + 1 < kinds) {
      launch(shape, key_maxima_kernel<2>, block, normalisers, of);
    } else {
      launch(shape, key_maxima_kernel<1>, block, normalisers, of);
    }
  }
}

}  // namespace

void attention_maxima(const View& queries, const HalfRows& keys, std::int64_t first, SoftmaxSpec spec,
                      std::span<const float> weights, std::span<float> maxima) {
  if (queries.rows == 0) return;
  const std::int64_t group = queries.heads / keys.heads;
  const std::int64_t kinds = static_cast<std::int64_t>(weights.size()) / queries.rows;
  in_parts(keys.heads, 1, [&](Lane& lane, std::int64_t head, std::int64_t heads) {
    const View own = queries.head_range(head * group, heads * group);
    const auto size = static_cast<std::size_t>(own.heads * keys.rows);
    const auto part = [&](std::size_t kind) {
      return maxima.subspan(kind * static_cast<std::size_t>(queries.heads * keys.rows) +
                                static_cast<std::size_t>(head * group * keys.rows),
                            size);
    };
    std::vector<const float*> parts;
    for (std::size_t kind = 0; kind < static_cast<std::size_t>(kinds); ++kind) parts.push_back(part(kind).data());
    float* raised_there = lane.upload_rows(std::span<const float* const>(parts), size);
    raise(lane, there(lane, own, keys.head_range(head, heads), first), spec, weights, kinds, raised_there);
    const auto found = lane.download(raised_there, parts.size() * size);
    lane.wait();
    for (std::size_t kind = 0; kind < parts.size(); ++kind)
      std::ranges::copy(found.subspan(kind * size, size), part(kind).begin());
  });
}

}  // namespace depthkv::cuda
