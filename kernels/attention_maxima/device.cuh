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

// kHeld keys to a block; grid.y is the head. kKinds of weights at once: the products are what costs.
template <int kKinds>
__global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    key_maxima_kernel(AttentionBlock block, const float* normalisers, Maxima maxima) {
  DEPTHKV_SHARED(Tiles, tiles);
  const int head = static_cast<int>(blockIdx.y);
  const int keys = block.first + block.rows;
  const int first_key = static_cast<int>(blockIdx.x) * kHeld;
  const int key = first_key + static_cast<int>(threadIdx.x) / kAcross * kEach;
  const int lane = static_cast<int>(threadIdx.x) % kAcross;
  const Vectors<Half> held{block.keys + first_key * block.key_row_stride + head / block.group * block.key_head_stride,
                           block.key_row_stride, min(kHeld, keys - first_key)};
  const float* queries = block.queries + head * block.query_head_stride;
  const int rows_before = head * block.rows;  // in normalisers
  const int behind = rows_that_see(block, first_key, held.count);
  float most[kKinds][kEach];
  DEPTHKV_UNROLL
  for (auto& kind : most) {
    DEPTHKV_UNROLL
    for (float& value : kind) value = -INFINITY;
  }
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
      const float normaliser = normalisers[rows_before + row];
      float weight[kKinds];
      DEPTHKV_UNROLL
      for (int w = 0; w < kKinds; ++w) weight[w] = maxima.weights[w * block.rows + row];
      DEPTHKV_UNROLL
      for (int i = 0; i < kEach; ++i) {
        if (key + i > position || key + i < first_seen_by(block, position)) continue;
        const float value = expf(logit_of(block, products[i][k]) - normaliser);
        DEPTHKV_UNROLL
        for (int w = 0; w < kKinds; ++w) most[w][i] = raised(most[w][i], value * weight[w]);
      }
    }
  }
  DEPTHKV_UNROLL
  for (int w = 0; w < kKinds; ++w) {
    DEPTHKV_UNROLL
    for (int i = 0; i < kEach; ++i) {
      DEPTHKV_UNROLL
      for (int step = kAcross / 2; step > 0; step /= 2)
        most[w][i] = raised(most[w][i], __shfl_xor_sync(kAllLanes, most[w][i], step));
      if (lane != 0 || key + i >= keys) continue;
      float& value = maxima.values[w * maxima.kind_stride + head * maxima.columns + key + i];
      value = raised(value, most[w][i]);
    }
  }
}

}  // namespace depthkv::cuda
