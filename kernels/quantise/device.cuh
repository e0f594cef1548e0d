// SPDX-License-Identifier: Apache-2.0
// Device code of quantise: one lane to a group of tokens, whose neighbour has the next channel, or eight to a group of
// channels. Numbers are read twice.
#pragma once
#include <cmath>

#include "kernels/launch.cuh"

namespace depthkv::cuda {

inline constexpr int kQuantiseThreads = 256;
template <bool kAlongTokens>
inline constexpr int kGroupLanes = kAlongTokens ? 1 : 8;

struct QuantiseBlock {
  const float* rows;  // [head][token][channel]
  float* out;
  long long tokens;
  long long channels;
  long long size;  // of a group
  double levels;
};

// grid: groups of a head, heads. All lanes of a warp stay together.
template <bool kAlongTokens>
__global__ void __launch_bounds__(kQuantiseThreads) quantise_kernel(QuantiseBlock block) {
  constexpr int kLanes = kGroupLanes<kAlongTokens>;
  const long long group = (static_cast<long long>(blockIdx.x) * kQuantiseThreads + threadIdx.x) / kLanes;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const long long across = kAlongTokens ? block.channels : (block.channels + block.size - 1) / block.size;
  const long long row = kAlongTokens ? group / across * block.size : group / across;
  const long long column = kAlongTokens ? group % across : group % across * block.size;
  const long long left = kAlongTokens ? block.tokens - row : block.channels - column;
  const long long count = row >= block.tokens ? 0 : left < block.size ? left : block.size;
  const long long stride = kAlongTokens ? block.channels : 1;
  const long long at = (blockIdx.y * block.tokens + row) * block.channels + column;
  float least = INFINITY;
  float most = -INFINITY;
  float none = 0;  // NaN once a number wasn't finite
  for (long long i = lane; i < count; i += kLanes) {
    const float x = block.rows[at + i * stride];
    least = x < least ? x : least;
    most = x > most ? x : most;
    none += x * 0.0F;
  }
  DEPTHKV_UNROLL
  for (int step = kLanes / 2; step > 0; step /= 2) {
    const float other_least = __shfl_xor_sync(kAllLanes, least, step);
    const float other_most = __shfl_xor_sync(kAllLanes, most, step);
    least = other_least < least ? other_least : least;
    most = other_most > most ? other_most : most;
    none += __shfl_xor_sync(kAllLanes, none, step);
  }
  const double low = static_cast<double>(least);
  const double step = (static_cast<double>(most) - low) / block.levels;
  for (long long i = lane; i < count; i += kLanes) {
    const float x = block.rows[at + i * stride];
    float y = x;
    if (step > 0) y = static_cast<float>(low + rint((static_cast<double>(x) - low) / step) * step);
    block.out[at + i * stride] = none == 0 ? y : none;
  }
}

}  // namespace depthkv::cuda
