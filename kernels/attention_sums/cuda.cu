// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention_sums/attention_sums.h"

#include <cstdint>
#include <string>

#include "depthkv/error.h"
#include "kernels/attention_sums/device.cuh"

namespace depthkv::cuda {

bool readable(const View& queries, const HalfRows& keys) {
  const auto aligned = [](const void* data) { return reinterpret_cast<std::uintptr_t>(data) % 16 == 0; };
  return queries.columns % kChunk == 0 && aligned(queries.data) && queries.row_stride % 4 == 0 &&
         queries.head_stride % 4 == 0 && aligned(keys.data) && keys.row_stride % 8 == 0;
}

void check_readable(const View& queries, const HalfRows& keys) {
  if (readable(queries, keys)) return;
  throw Error("CUDA: heads of " + std::to_string(queries.columns) + " dimensions, query strides of " +
              std::to_string(queries.row_stride) + " and " + std::to_string(queries.head_stride) +
              " floats, key rows of " + std::to_string(keys.row_stride) + " halves, expected a multiple of " +
              std::to_string(kChunk) + " dimensions and vectors that begin at multiples of 16 bytes; use the CPU");
}

DeviceAttention there(Lane& lane, const View& queries, const HalfRows& keys, std::int64_t first) {
  if (device_of(queries.data)) return {queries, keys, first};
  const std::int64_t columns = (keys.columns + kChunk - 1) / kChunk * kChunk;
  return {{lane.upload(queries, columns), queries.heads, queries.rows, columns, queries.rows * columns, columns},
          {lane.upload(keys, columns), keys.heads, keys.rows, columns, keys.heads * columns},
          first};
}

void attention_sums(const DeviceAttention& in, SoftmaxSpec spec, float* normalisers, double* sums, void* stream) {
  if (in.queries.rows == 0) return;
  const AttentionBlock block = normalise_rows(in, spec, normalisers, stream);
  const auto heads = static_cast<unsigned>(in.queries.heads);
  launch({.grid = {blocks_for(block.first + block.rows), heads}, .block = {kTileThreads}, .stream = stream},
         key_sums_kernel, block, normalisers, sums, in.keys.rows);
}

void attention_sums(const View& queries, const HalfRows& keys, std::int64_t first, SoftmaxSpec spec,
                    std::span<double> sums) {
  if (queries.rows == 0) return;
  in_parts(keys.heads, 1, [&](Lane& lane, std::int64_t head, std::int64_t heads) {
    const std::int64_t group = queries.heads / keys.heads;
    const View own = queries.head_range(head * group, heads * group);
    const auto part = sums.subspan(static_cast<std::size_t>(head * group * keys.rows),
                                   static_cast<std::size_t>(heads * group * keys.rows));
    double* added_to = lane.upload(std::span<const double>(part));
    attention_sums(there(lane, own, keys.head_range(head, heads), first), spec,
                   lane.room<float>(static_cast<std::size_t>(own.heads * own.rows)), added_to, lane.stream());
    const auto added = lane.download(added_to, part.size());
    lane.wait();
    std::ranges::copy(added, part.begin());
  });
}

}  // namespace depthkv::cuda
