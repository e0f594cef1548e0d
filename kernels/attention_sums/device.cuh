// SPDX-License-Identifier: Apache-2.0
// Device code of attention_sums. Two passes, neither of which keeps a row: the logarithm of every row's sum of
// exponentials, then every key's sum over rows. In both, a block holds some vectors (queries, then keys) and lets the
// others stream by (kernels/tiles.cuh). Sums are taken in one order, and no atomics are needed.
#pragma once
#include <cmath>

#include "kernels/cached_attention.cuh"

namespace depthkv::cuda {

__device__ inline float logit_of(const AttentionBlock& block, float product) {
  const float logit = product * block.scale;
  return block.softcap > 0 ? block.softcap * tanhf(logit / block.softcap) : logit;
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

// kHeld keys to a block; grid.y is the head. Adds to sums [head][columns].
static __global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    key_sums_kernel(AttentionBlock block, const float* normalisers, double* sums, long long columns) {
  DEPTHKV_SHARED(Tiles, tiles);
  const int head = static_cast<int>(blockIdx.y);
  const int keys = block.first + block.rows;
  const int first_key = static_cast<int>(blockIdx.x) * kHeld;
  const int key = first_key + static_cast<int>(threadIdx.x) / kAcross * kEach;
  const int lane = static_cast<int>(threadIdx.x) % kAcross;
  const Vectors<Half> held{block.keys + first_key * block.key_row_stride + head / block.group * block.key_head_stride,
                           block.key_row_stride, min(kHeld, keys - first_key)};
  const float* queries = block.queries + head * block.query_head_stride;
  const float* row_normalisers = normalisers + static_cast<long long>(head) * block.rows;
  // Rows from the block's first key on see some of its keys, and with a window none that has left the last behind.
  const int behind =
      block.window > 0 ? min(block.rows, first_key + held.count - 1 + block.window - block.first) : block.rows;
  double sum[kEach] = {};
  DEPTHKV_NO_UNROLL
  for (int from = max(0, first_key - block.first); from < behind; from += kStreamed) {
    float products[kEach][kEach];
    multiply(
        products, tiles, held,
        Vectors<float>{queries + from * block.query_row_stride, block.query_row_stride, min(kStreamed, behind - from)},
        block.dimensions);
    DEPTHKV_UNROLL
    for (int k = 0; k < kEach; ++k) {
      const int row = from + lane * kEach + k;
      if (row >= behind) continue;
      const int position = block.first + row;
      const float normaliser = row_normalisers[row];
      DEPTHKV_UNROLL
      for (int i = 0; i < kEach; ++i) {
        if (key + i > position || key + i < first_seen_by(block, position)) continue;
        sum[i] += static_cast<double>(expf(logit_of(block, products[i][k]) - normaliser));
      }
    }
  }
  DEPTHKV_UNROLL
  for (int i = 0; i < kEach; ++i) {
    DEPTHKV_UNROLL
    for (int step = kAcross / 2; step > 0; step /= 2) sum[i] += __shfl_xor_sync(kAllLanes, sum[i], step);
    if (lane == 0 && key + i < keys) sums[head * columns + key + i] += sum[i];
  }
}

}  // namespace depthkv::cuda
