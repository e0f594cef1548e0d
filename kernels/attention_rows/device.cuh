// SPDX-License-Identifier: Apache-2.0
// Device code of attention_rows: logits by tiles of 64 rows and 32 keys, then a warp per row for its softmax. Every
// product, exponential and sum is taken as the CPU takes it (kernels/loops), so that scores made of rows rank entries
// the same way on both, to the bit: terms fused in the order of the dimensions, our own exponential, a row's sum in 32
// parts. Needs --fmad=false: what is fused says so.
#pragma once
#include "kernels/tiles.cuh"

namespace depthkv::cuda {

struct RowsBlock {
  const float* queries;  // [head][row][dimensions]
  const float* keys;     // [KV head][token][dimensions]
  const int* positions;  // [row]
  int dimensions;        // a multiple of kChunk
  int rows;
  int tokens;
  int group;   // query heads per KV head
  int window;  // 0: all up to its own
  float scale;
  float softcap;  // 0: none
};

// out [head][row][token]; grid: tiles of keys, tiles of rows, heads.
static __global__ void __launch_bounds__(kTileThreads, kTileBlocks) row_logits_kernel(RowsBlock block, float* out) {
  DEPTHKV_SHARED(Tiles, tiles);
  const int head = static_cast<int>(blockIdx.z);
  const int first_row = static_cast<int>(blockIdx.y) * kHeld;
  const int first_key = static_cast<int>(blockIdx.x) * kStreamed;
  const long long dimensions = block.dimensions;
  const Vectors<float> held{block.queries + (static_cast<long long>(head) * block.rows + first_row) * dimensions,
                            dimensions, min(kHeld, block.rows - first_row)};
  const Vectors<float> streamed{
      block.keys + (static_cast<long long>(head / block.group) * block.tokens + first_key) * dimensions, dimensions,
      min(kStreamed, block.tokens - first_key)};
  float products[kEach][kEach];
  multiply(products, tiles, held, streamed, block.dimensions);
  const int row = static_cast<int>(threadIdx.x) / kAcross * kEach;
  const int key = static_cast<int>(threadIdx.x) % kAcross * kEach;
  DEPTHKV_UNROLL
  for (int i = 0; i < kEach; ++i) {
    if (row + i >= held.count) continue;
    float* to = out + (static_cast<long long>(head) * block.rows + first_row + row + i) * block.tokens + first_key;
    DEPTHKV_UNROLL
    for (int k = 0; k < kEach; ++k)
      if (key + k < streamed.count) to[key + k] = products[i][k] * block.scale;
  }
}

// exp(x) for x <= 0, as kernels/loops/wide.h has it.
__device__ inline float exp_as_on_cpu(float x) {
  constexpr float kToInteger = 12582912.0F;  // 1.5 * 2^23: its sum with a small number has that, rounded, in its bits
  const float shifted = fmaf(x, 1.44269504F, kToInteger);
  const float n = shifted - kToInteger;
  float r = fmaf(n, -0.693359375F, x);
  r = fmaf(n, 2.12194440e-4F, r);
  float p = 1.9875691500e-4F;
  p = fmaf(p, r, 1.3981999507e-3F);
  p = fmaf(p, r, 8.3334519073e-3F);
  p = fmaf(p, r, 4.1665795894e-2F);
  p = fmaf(p, r, 1.6666665459e-1F);
  p = fmaf(p, r, 5.0000001201e-1F);
  p = fmaf(p, r * r, r) + 1.0F;
  const float power = float_of_bits((bits_of_float(shifted) - bits_of_float(kToInteger) + 127U) << 23);
  return x < -87.0F ? 0.0F : p * power;
}

__device__ inline float tanh_as_on_cpu(float x) {
  const float e = exp_as_on_cpu(-2.0F * (x < 0 ? -x : x));
  const float result = (1.0F - e) / (1.0F + e);
  return x < 0 ? -result : result;
}

inline constexpr int kSoftmaxWarps = 4;

// From logits to rows, in place; a warp to a row, a lane to every 32nd key. grid: rows, heads.
static __global__ void __launch_bounds__(kSoftmaxWarps * 32) row_softmax_kernel(RowsBlock block, float* rows) {
  const int row = static_cast<int>(blockIdx.x) * kSoftmaxWarps + static_cast<int>(threadIdx.x) / 32;
  if (row >= block.rows) return;  // a whole warp
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float* values = rows + (static_cast<long long>(blockIdx.y) * block.rows + row) * block.tokens;
  const int end = block.positions[row] + 1;
  const int begin = block.window > 0 && end > block.window ? end - block.window : 0;
  float top = -INFINITY;
  for (int j = begin / 32 * 32 + lane; j < end; j += 32) {
    if (j < begin) continue;
    float logit = values[j];
    if (block.softcap > 0) values[j] = logit = block.softcap * tanh_as_on_cpu(logit / block.softcap);
    top = logit > top ? logit : top;
  }
  DEPTHKV_UNROLL
  for (int step = 16; step > 0; step /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, top, step);
    top = other > top ? other : top;
  }
  float sum = 0;
  for (int j = begin / 32 * 32 + lane; j < end; j += 32) {
    if (j < begin) continue;
    const float x = exp_as_on_cpu(values[j] - top);
    values[j] = x;
    sum += x;
  }
  DEPTHKV_UNROLL
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
  const float inverse = 1.0F / sum;
  for (int j = lane; j < block.tokens; j += 32) values[j] = j >= begin && j < end ? values[j] * inverse : 0.0F;
}

}  // namespace depthkv::cuda
