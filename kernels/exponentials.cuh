// SPDX-License-Identifier: Apache-2.0
// The CPU's own exponential and hyperbolic tangent (kernels/loops/wide.h) in device code, to the bit. Needs
// --fmad=false: what is fused says so.
#pragma once
#include "kernels/numbers.cuh"

namespace depthkv::cuda {

// exp(x) for x <= 0.
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

}  // namespace depthkv::cuda
