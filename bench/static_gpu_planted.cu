// SPDX-License-Identifier: Apache-2.0
// A kernel that has to spill: bench/static_gpu --check fails if it doesn't notice.
namespace depthkv {

__global__ void __launch_bounds__(1024, 2) planted_kernel(float* values, int stride) {
  float kept[96];
#pragma unroll
  for (int i = 0; i < 96; ++i) kept[i] = values[i * stride + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 96; ++i) values[i * stride + threadIdx.x] = kept[95 - i] * kept[i];
}

}  // namespace depthkv
