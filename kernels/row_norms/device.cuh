// SPDX-License-Identifier: Apache-2.0
// Device code of row_norms: four lanes to a row, each with every fourth number, as the CPU adds them up: the same bits.
#pragma once
#include <cmath>

#include "kernels/launch.cuh"

namespace depthkv::cuda {

inline constexpr int kNormThreads = 128;
inline constexpr int kRowLanes = 4;
inline constexpr int kBlockNorms = kNormThreads / kRowLanes;

// rows [count][columns], norms [count]; squares: the L2 norm, else L1. All lanes of a warp stay together.
static __global__ void __launch_bounds__(kNormThreads)
    row_norms_kernel(const float* rows, long long count, int columns, int squares, float* norms) {
  const long long row = static_cast<long long>(blockIdx.x) * kBlockNorms + threadIdx.x / kRowLanes;
  const int lane = static_cast<int>(threadIdx.x) % kRowLanes;
  const int whole = row < count ? columns / kRowLanes * kRowLanes : 0;
  const float* from = rows + row * columns;
  const auto term = [&](int c) {
    const double x = static_cast<double>(from[c]);
    return squares != 0 ? x * x : fabs(x);
  };
  double sum = 0;
  for (int c = lane; c < whole; c += kRowLanes) sum += term(c);
  if (lane == 0 && row < count)
    for (int c = whole; c < columns; ++c) sum += term(c);
  double all = 0;
  DEPTHKV_UNROLL
  for (int i = 0; i < kRowLanes; ++i) all += __shfl_sync(kAllLanes, sum, i, kRowLanes);
  if (lane == 0 && row < count) norms[row] = static_cast<float>(squares != 0 ? sqrt(all) : all);
}

}  // namespace depthkv::cuda
