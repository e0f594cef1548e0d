// SPDX-License-Identifier: Apache-2.0
// Device code of attention_sums: the second pass adds up every key's exponentials over rows.
#pragma once
#include "kernels/attention_sums/passes.cuh"

namespace depthkv::cuda {

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
  const int behind = rows_that_see(block, first_key, held.count);
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
