// SPDX-License-Identifier: Apache-2.0
// Half precision and bfloat16 in device code, as the bits that caches hold. nvcc has the hardware's conversions; the
// host has ours, with the same results.
#pragma once
#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#else
#include <bit>
#include <cstdint>

#include "kernels/half.h"
#endif

#include "kernels/launch.cuh"

namespace depthkv::cuda {

using Half = unsigned short;
using Bfloat = unsigned short;

__device__ inline float float_of_half(Half half) {
#ifdef __CUDACC__
  return __half2float(__ushort_as_half(half));
#else
  return from_half(half);
#endif
}

// To nearest, ties to even.
__device__ inline Half half_of_float(float value) {
#ifdef __CUDACC__
  return __half_as_ushort(__float2half_rn(value));
#else
  return to_half(value);
#endif
}

__device__ inline float float_of_bfloat(Bfloat bits) {
#ifdef __CUDACC__
  return __bfloat162float(__ushort_as_bfloat16(bits));
#else
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
#endif
}

// To nearest, ties to even.
__device__ inline Bfloat bfloat_of_float(float value) {
#ifdef __CUDACC__
  return __bfloat16_as_ushort(__float2bfloat16_rn(value));
#else
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (value != value) return 0x7fff;  // as the hardware's
  return static_cast<Bfloat>((bits + 0x7fffU + (bits >> 16 & 1U)) >> 16);
#endif
}

}  // namespace depthkv::cuda
