// SPDX-License-Identifier: Apache-2.0
// Running sums of integers over the threads of a block.
#pragma once
#include "kernels/launch.cuh"

namespace depthkv::cuda {

inline constexpr int kScanThreads = 256;
inline constexpr int kScanWarps = kScanThreads / 32;

struct Scanned {
  long long before;  // of the threads below this one
  long long all;
};

// All kScanThreads threads of the block together; `warps` is shared memory that nothing else uses meanwhile.
__device__ inline Scanned scan_block(long long value, long long (&warps)[kScanWarps]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  long long sum = value;
  DEPTHKV_UNROLL
  for (int step = 1; step < 32; step *= 2) {
    const long long lower = __shfl_up_sync(kAllLanes, sum, static_cast<unsigned>(step));
    if (lane >= step) sum += lower;
  }
  __syncthreads();  // the last scan has been read
  if (lane == 31) warps[warp] = sum;
  __syncthreads();
  Scanned scanned{sum - value, 0};
  DEPTHKV_UNROLL
  for (int w = 0; w < kScanWarps; ++w) {
    if (w < warp) scanned.before += warps[w];
    scanned.all += warps[w];
  }
  return scanned;
}

}  // namespace depthkv::cuda
