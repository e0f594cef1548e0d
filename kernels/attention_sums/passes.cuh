// SPDX-License-Identifier: Apache-2.0
// What attention_sums and attention_maxima share in device code: two passes, neither of which keeps a row. The first
// takes the logarithm of every row's sum of exponentials; in the second every key is reduced over rows, in a way that
// each of them has its own. In both, a block holds some vectors (queries, then keys) and lets the others stream by
// (kernels/tiles.cuh). All is taken in one order, and no atomics are needed.
#pragma once
#include <cmath>

#include "kernels/attention_sums/launchers.h"
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

__device__ inline float logit_of(const AttentionBlock& block, float product) {
  const float logit = product * block.scale;
  return block.softcap > 0 ? block.softcap * tanhf(logit / block.softcap) : logit;
}

// The first key that the row at `position` sees.
__device__ inline int first_seen_by(const AttentionBlock& block, int position) {
  return block.window > 0 && position >= block.window ? position - block.window + 1 : 0;
}

// Rows from a block's first key on see some of its keys, and with a window none that has left the last behind: those
// below what this returns.
__device__ inline int rows_that_see(const AttentionBlock& block, int first_key, int keys) {
  return block.window > 0 ? min(block.rows, first_key + keys - 1 + block.window - block.first) : block.rows;
}

// exp(-inf - -inf), for a lane that has seen nothing yet, is 0 here.
__device__ inline double rescaled(double sum, float top, float to) {
  return top == -INFINITY ? sum * 0.0 : sum * static_cast<double>(expf(top - to));
}

// kHeld rows to a block; grid.y is the head. normalisers [head][row].
static __global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    row_normalisers_kernel(AttentionBlock block, float* normalisers) {
  DEPTHKV_SHARED(Tiles, tiles);
  const int head = static_cast<int>(blockIdx.y);
  const int first_row = static_cast<int>(blockIdx.x) * kHeld;
  const int row = first_row + static_cast<int>(threadIdx.x) / kAcross * kEach;
  const int lane = static_cast<int>(threadIdx.x) % kAcross;
  const Vectors<float> held{block.queries + first_row * block.query_row_stride + head * block.query_head_stride,
                            block.query_row_stride, min(kHeld, block.rows - first_row)};
  const Half* keys = block.keys + head / block.group * block.key_head_stride;
  const int behind = block.first + first_row + held.count;
  float top[kEach] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
  double sum[kEach] = {};
  DEPTHKV_NO_UNROLL
  for (int from = first_seen_by(block, block.first + first_row); from < behind; from += kStreamed) {
    float products[kEach][kEach];
    multiply(products, tiles, held,
             Vectors<Half>{keys + from * block.key_row_stride, block.key_row_stride, min(kStreamed, behind - from)},
             block.dimensions);
    DEPTHKV_UNROLL
    for (int i = 0; i < kEach; ++i) {
      const int position = block.first + row + i;
      DEPTHKV_UNROLL
      for (int k = 0; k < kEach; ++k) {
        const int key = from + lane * kEach + k;
        if (key > position || key < first_seen_by(block, position)) continue;
        const float logit = logit_of(block, products[i][k]);
        const float highest = fmaxf(top[i], logit);
        sum[i] = rescaled(sum[i], top[i], highest) + static_cast<double>(expf(logit - highest));
        top[i] = highest;
      }
    }
  }
  DEPTHKV_UNROLL
  for (int i = 0; i < kEach; ++i) {
    DEPTHKV_UNROLL
    for (int step = kAcross / 2; step > 0; step /= 2) {
      const float other_top = __shfl_xor_sync(kAllLanes, top[i], step);
      const double other_sum = __shfl_xor_sync(kAllLanes, sum[i], step);
      const float highest = fmaxf(top[i], other_top);
      sum[i] = rescaled(sum[i], top[i], highest) + rescaled(other_sum, other_top, highest);
      top[i] = highest;
    }
    if (lane == 0 && row + i < block.rows)
      normalisers[static_cast<long long>(head) * block.rows + row + i] = top[i] + static_cast<float>(log(sum[i]));
  }
}

// The keys of a block of the second pass: kHeld of one head, which is grid.y; kEach to a thread. Threads that follow
// each other, kAcross of them, have the same keys and other rows.
struct HeldKeys {
  int head;
  int first;
  int own;  // this thread's first
  int lane;
  int all;  // of the head
};
__device__ inline HeldKeys held_keys(const AttentionBlock& block) {
  const int first = static_cast<int>(blockIdx.x) * kHeld;
  return {static_cast<int>(blockIdx.y), first, first + static_cast<int>(threadIdx.x) / kAcross * kEach,
          static_cast<int>(threadIdx.x) % kAcross, block.first + block.rows};
}

// Calls reduction.begin(row) and then reduction.take(i, softmax) for each of this thread's keys that the row sees.
template <class Reduction>
__device__ inline void for_rows(const AttentionBlock& block, const float* normalisers, const HeldKeys& keys,
                                Tiles& tiles, Reduction& reduction) {
  const Vectors<Half> held{
      block.keys + keys.first * block.key_row_stride + keys.head / block.group * block.key_head_stride,
      block.key_row_stride, min(kHeld, keys.all - keys.first)};
  const float* queries = block.queries + keys.head * block.query_head_stride;
  const int rows_before = keys.head * block.rows;  // in normalisers
  const int behind = rows_that_see(block, keys.first, held.count);
  DEPTHKV_NO_UNROLL
  for (int from = max(0, keys.first - block.first); from < behind; from += kStreamed) {
    float products[kEach][kEach];
    multiply(
        products, tiles, held,
        Vectors<float>{queries + from * block.query_row_stride, block.query_row_stride, min(kStreamed, behind - from)},
        block.dimensions);
    DEPTHKV_UNROLL
    for (int k = 0; k < kEach; ++k) {
      const int row = from + keys.lane * kEach + k;
      if (row >= behind) continue;
      const int position = block.first + row;
      const float normaliser = normalisers[rows_before + row];
      reduction.begin(row);
      DEPTHKV_UNROLL
      for (int i = 0; i < kEach; ++i) {
        if (keys.own + i > position || keys.own + i < first_seen_by(block, position)) continue;
        reduction.take(i, expf(logit_of(block, products[i][k]) - normaliser));
      }
    }
  }
}

// What the second pass launches a block for: kHeld vectors.
inline unsigned blocks_for(std::int64_t vectors) { return static_cast<unsigned>((vectors + kHeld - 1) / kHeld); }

// Launches the first pass and returns what it and the second take.
inline AttentionBlock normalise_rows(const DeviceAttention& in, SoftmaxSpec spec, float* normalisers, void* stream) {
  check_readable(in.queries, in.keys);
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
  launch({.grid = {blocks_for(block.rows), static_cast<unsigned>(in.queries.heads)},
          .block = {kTileThreads},
          .stream = stream},
         row_normalisers_kernel, block, normalisers);
  return block;
}

}  // namespace depthkv::cuda
