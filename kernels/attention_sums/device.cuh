// SPDX-License-Identifier: Apache-2.0
// Device code of attention_sums: the second pass adds up every key's exponentials over rows.
#pragma once
#include "kernels/attention_sums/passes.cuh"

namespace depthkv::cuda {

struct KeySums {
  double sum[kEach] = {};
  __device__ void begin(int) {}
  __device__ void take(int i, float softmax) { sum[i] += static_cast<double>(softmax); }
};

// Grid: held_keys(). Adds to sums [head][columns].
static __global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    key_sums_kernel(AttentionBlock block, const float* normalisers, double* sums, long long columns) {
  DEPTHKV_SHARED(Tiles, tiles);
  const HeldKeys keys = held_keys(block);
  KeySums own;
  for_rows(block, normalisers, keys, tiles, own);
  DEPTHKV_UNROLL
  for (int i = 0; i < kEach; ++i) {
    DEPTHKV_UNROLL
    for (int step = kAcross / 2; step > 0; step /= 2) own.sum[i] += __shfl_xor_sync(kAllLanes, own.sum[i], step);
    if (keys.lane == 0 && keys.own + i < keys.all) sums[keys.head * columns + keys.own + i] += own.sum[i];
  }
}

}  // namespace depthkv::cuda
