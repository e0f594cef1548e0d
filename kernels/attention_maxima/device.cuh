// SPDX-License-Identifier: Apache-2.0
// Device code of attention_maxima: the second pass takes every key's largest weighted softmax over rows.
#pragma once
#include "kernels/attention_sums/passes.cuh"

namespace depthkv::cuda {

// The larger; NaN stays.
__device__ inline float raised(float most, float value) { return value > most || value != value ? value : most; }

// Of maxima with one kind of weights.
struct Maxima {
  const float* weights;  // [kind][row]
  float* values;         // [kind][head][columns], raised
  long long columns;
  long long kind_stride;  // of values
};

template <int kKinds>
struct KeyMaxima {
  const Maxima& maxima;
  int rows;
  float most[kKinds][kEach];
  float weight[kKinds];  // of the row

  __device__ KeyMaxima(const Maxima& of, int row_count) : maxima(of), rows(row_count) {
    DEPTHKV_UNROLL
    for (auto& kind : most) {
      DEPTHKV_UNROLL
      for (float& value : kind) value = -INFINITY;
    }
  }
  __device__ void begin(int row) {
    DEPTHKV_UNROLL
    for (int w = 0; w < kKinds; ++w) weight[w] = maxima.weights[w * rows + row];
  }
  __device__ void take(int i, float softmax) {
    DEPTHKV_UNROLL
    for (int w = 0; w < kKinds; ++w) most[w][i] = raised(most[w][i], softmax * weight[w]);
  }
};

// Grid: held_keys(). kKinds of weights at once: the products are what costs.
template <int kKinds>
__global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    key_maxima_kernel(AttentionBlock block, const float* normalisers, Maxima maxima) {
  DEPTHKV_SHARED(Tiles, tiles);
  const HeldKeys keys = held_keys(block);
  KeyMaxima<kKinds> own(maxima, block.rows);
  for_rows(block, normalisers, keys, tiles, own);
  DEPTHKV_UNROLL
  for (int w = 0; w < kKinds; ++w) {
    DEPTHKV_UNROLL
    for (int i = 0; i < kEach; ++i) {
      float most = own.most[w][i];
      DEPTHKV_UNROLL
      for (int step = kAcross / 2; step > 0; step /= 2) most = raised(most, __shfl_xor_sync(kAllLanes, most, step));
      if (keys.lane != 0 || keys.own + i >= keys.all) continue;
      float& value = maxima.values[w * maxima.kind_stride + keys.head * maxima.columns + keys.own + i];
      value = raised(value, most);
    }
  }
}

}  // namespace depthkv::cuda
