// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <string>

#include "depthkv/error.h"
#include "kernels/attention_sums/attention_sums.h"
#include "kernels/attention_sums/device.cuh"
#include "kernels/device_lane.h"

namespace depthkv::cuda {
namespace {

unsigned blocks_for(std::int64_t vectors) { return static_cast<unsigned>((vectors + kHeld - 1) / kHeld); }

// Vectors are read 128 bits at a time.
void check_layout(const DeviceAttention& in) {
  if (in.queries.columns % kChunk != 0)
    throw Error("CUDA: heads of " + std::to_string(in.queries.columns) + " dimensions, expected a multiple of " +
                std::to_string(kChunk) + "; use the CPU");
  const auto aligned = [](const void* data) { return reinterpret_cast<std::uintptr_t>(data) % 16 == 0; };
  if (aligned(in.queries.data) && in.queries.row_stride % 4 == 0 && in.queries.head_stride % 4 == 0 &&
      aligned(in.keys.data) && in.keys.row_stride % 8 == 0)
    return;
  throw Error("CUDA: query strides of " + std::to_string(in.queries.row_stride) + " and " +
              std::to_string(in.queries.head_stride) + " floats, key rows of " + std::to_string(in.keys.row_stride) +
              " halves, expected vectors that begin at multiples of 16 bytes; use the CPU");
}

}  // namespace

void attention_sums(const DeviceAttention& in, SoftmaxSpec spec, float* normalisers, double* sums, void* stream) {
  if (in.queries.rows == 0) return;
  check_layout(in);
  const AttentionBlock block{in.queries.data,
                             in.queries.row_stride,
                             in.queries.head_stride,
                             in.keys.data,
                             in.keys.row_stride,
                             in.keys.columns,
                             static_cast<int>(in.queries.columns),
                             static_cast<int>(in.queries.rows),
                             static_cast<int>(in.queries.heads / in.keys.heads),
                             static_cast<int>(in.first),
                             static_cast<int>(spec.window),
                             static_cast<float>(spec.scale),
                             static_cast<float>(spec.softcap)};
  const auto heads = static_cast<unsigned>(in.queries.heads);
  launch({.grid = {blocks_for(block.rows), heads}, .block = {kTileThreads}, .stream = stream}, row_normalisers_kernel,
         block, normalisers);
  launch({.grid = {blocks_for(block.first + block.rows), heads}, .block = {kTileThreads}, .stream = stream},
         key_sums_kernel, block, normalisers, sums, in.keys.rows);
}

void attention_sums(const View& queries, const HalfRows& keys, std::int64_t first, SoftmaxSpec spec,
                    std::span<double> sums) {
  if (queries.rows == 0) return;
  const std::int64_t columns = (keys.columns + kChunk - 1) / kChunk * kChunk;
  in_parts(keys.heads, 1, [&](Lane& lane, std::int64_t head, std::int64_t heads) {
    const std::int64_t group = queries.heads / keys.heads;
    const View own = queries.head_range(head * group, heads * group);
    DeviceAttention in{own, {}, first};
    in.queries = {lane.upload(own, columns), own.heads, own.rows, columns, own.rows * columns, columns};
    in.keys = {lane.upload(keys.head_range(head, heads), columns), heads, keys.rows, columns, heads * columns};
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
