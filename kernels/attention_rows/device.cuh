// SPDX-License-Identifier: Apache-2.0
// Device code of attention_rows: logits are products of rows, then a warp takes a row's softmax. Every product,
// exponential and sum is taken as the CPU takes it (kernels/loops), so that scores made of rows rank entries the same
// way on both, to the bit: terms fused in the order of the dimensions, our own exponential, a row's sum in 32 parts.
// Needs --fmad=false: what is fused says so.
#pragma once
#include "kernels/exponentials.cuh"
#include "kernels/product_rows.cuh"

namespace depthkv::cuda {

struct RowsBlock {
  const int* positions;  // [row]
  int rows;
  int tokens;
  int window;     // 0: all up to its own
  float softcap;  // 0: none
};

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
