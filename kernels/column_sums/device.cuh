// SPDX-License-Identifier: Apache-2.0
// Device code of column_sums.
#pragma once
#include "kernels/launch.cuh"

namespace depthkv::cuda {

inline constexpr int kColumnThreads = 256;

// One thread per (head, column): neighbouring threads read neighbouring floats. grid.y is the head.
__global__ void __launch_bounds__(kColumnThreads)
    column_sums_kernel(const float* rows, float* sums, long long count, long long columns) {
  const long long column = static_cast<long long>(blockIdx.x) * kColumnThreads + threadIdx.x;
  if (column >= columns) return;
  const long long head = blockIdx.y;
  const float* at = rows + head * count * columns + column;
  double sum = 0;
  for (long long r = 0; r < count; ++r) sum += static_cast<double>(at[r * columns]);
  sums[head * columns + column] = static_cast<float>(sum);
}

}  // namespace depthkv::cuda
