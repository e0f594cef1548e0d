// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention_sums/attention_sums.h"
#include "kernels/attention_sums/device.cuh"
#include "kernels/device_lane.h"

namespace depthkv::cuda {

void attention_sums(const DeviceAttention& in, SoftmaxSpec spec, float* normalisers, double* sums, void* stream) {
  if (in.queries.rows == 0) return;
  const AttentionBlock block = attention_block(in, spec);
  const auto heads = static_cast<unsigned>(in.queries.heads);
  launch({.grid = {held_blocks(block.rows), heads}, .block = {kTileThreads}, .stream = stream}, row_normalisers_kernel,
         block, normalisers);
  launch({.grid = {held_blocks(block.first + block.rows), heads}, .block = {kTileThreads}, .stream = stream},
         key_sums_kernel, block, normalisers, sums, in.keys.rows);
}

void attention_sums(const View& queries, const HalfRows& keys, std::int64_t first, SoftmaxSpec spec,
                    std::span<double> sums) {
  if (queries.rows == 0) return;
  in_parts(keys.heads, 1, [&](Lane& lane, std::int64_t head, std::int64_t heads) {
    const std::int64_t group = queries.heads / keys.heads;
    const View own = queries.head_range(head * group, heads * group);
    const DeviceAttention in = upload(lane, own, keys.head_range(head, heads), first);
    const auto part = sums.subspan(static_cast<std::size_t>(head * group * keys.rows),
                                   static_cast<std::size_t>(heads * group * keys.rows));
    double* there = lane.upload(std::span<const double>(part));
    attention_sums(in, spec, lane.room<float>(static_cast<std::size_t>(own.heads * own.rows)), there, lane.stream());
    const auto added = lane.download(there, part.size());
    lane.wait();
    std::ranges::copy(added, part.begin());
  });
}

}  // namespace depthkv::cuda
