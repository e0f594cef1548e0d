// SPDX-License-Identifier: Apache-2.0
// What attention_sums and attention_maxima share: a block of causal rows over cached keys, as both read it in device
// memory.
#pragma once
#include <cstdint>
#include <string>

#include "depthkv/error.h"
#include "kernels/attention_sums/attention_sums.h"
#include "kernels/device_lane.h"
#include "kernels/tiles.cuh"

namespace depthkv::cuda {

// Strides are in elements; vectors begin at multiples of 16 bytes.
struct AttentionBlock {
  const float* queries;  // [row][head][dimension]
  long long query_row_stride;
  long long query_head_stride;
  const Half* keys;  // [position][KV head][dimension]
  long long key_row_stride;
  long long key_head_stride;
  int dimensions;  // a multiple of kChunk
  int rows;
  int group;   // query heads per KV head
  int first;   // position of row 0
  int window;  // 0: all up to its own
  float scale;
  float softcap;  // 0: none
};

// The first key that the row at `position` sees.
__device__ inline int first_seen_by(const AttentionBlock& block, int position) {
  return block.window > 0 && position >= block.window ? position - block.window + 1 : 0;
}

inline unsigned held_blocks(std::int64_t vectors) { return static_cast<unsigned>((vectors + kHeld - 1) / kHeld); }

// Vectors are read 128 bits at a time.
inline void check_layout(const DeviceAttention& in) {
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

// Copied to where the lane has memory, dimensions filled up with zeros.
inline DeviceAttention upload(Lane& lane, const View& queries, const HalfRows& keys, std::int64_t first) {
  const std::int64_t columns = (keys.columns + kChunk - 1) / kChunk * kChunk;
  DeviceAttention in{queries, keys, first};
  in.queries = {lane.upload(queries, columns), queries.heads, queries.rows, columns, queries.rows * columns, columns};
  in.keys = {lane.upload(keys, columns), keys.heads, keys.rows, columns, keys.heads * columns};
  return in;
}

// Throws Error for vectors that can't be read.
inline AttentionBlock attention_block(const DeviceAttention& in, SoftmaxSpec spec) {
  check_layout(in);
  return {in.queries.data,
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
}

}  // namespace depthkv::cuda
