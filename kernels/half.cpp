// SPDX-License-Identifier: Apache-2.0
#include "kernels/half.h"

#include <bit>
#include <cassert>
#include <cmath>
#include <cstddef>

#ifdef __F16C__
#include <immintrin.h>
#endif

namespace depthkv {

std::uint16_t to_half(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000U);
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  if (magnitude > 0x7f800000U)
    return static_cast<std::uint16_t>(sign | 0x7e00U | (magnitude >> 13 & 0x3ffU));  // NaN keeps its payload
  if (magnitude >= 0x47800000U) return static_cast<std::uint16_t>(sign | 0x7c00U);   // 65536 and up: infinity
  if (magnitude < 0x38800000U) {  // below 2^-14: subnormal, in units of 2^-24
    const double units = std::nearbyint(std::ldexp(static_cast<double>(std::bit_cast<float>(magnitude)), 24));
    return static_cast<std::uint16_t>(sign | static_cast<std::uint16_t>(units));
  }
  const std::uint32_t odd = magnitude >> 13 & 1U;
  const std::uint32_t rounded =
      magnitude - 0x38000000U + 0xfffU + odd;  // rebias the exponent, round half to even; may carry to infinity
  return static_cast<std::uint16_t>(sign | rounded >> 13);
}

float from_half(std::uint16_t half) {
  const auto sign = static_cast<std::uint32_t>(half & 0x8000U) << 16;
  const std::uint32_t exponent = half >> 10 & 0x1fU;
  const std::uint32_t mantissa = half & 0x3ffU;
  if (exponent == 0x1f)
    return std::bit_cast<float>(sign | 0x7f800000U | mantissa << 13 | (mantissa != 0 ? 0x400000U : 0U));
  if (exponent == 0) {
    const float units = std::ldexp(static_cast<float>(mantissa), -24);
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(units) | sign);
  }
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}

void to_half(std::span<const float> from, std::span<std::uint16_t> to) {
  assert(from.size() == to.size());
  std::size_t i = 0;
#ifdef __F16C__
  for (; i + 8 <= from.size(); i += 8) {
    const __m128i halves =
        _mm256_cvtps_ph(_mm256_loadu_ps(from.data() + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to.data() + i), halves);
  }
#endif
  for (; i < from.size(); ++i) to[i] = to_half(from[i]);
}

void from_half(std::span<const std::uint16_t> from, std::span<float> to) {
  assert(from.size() == to.size());
  std::size_t i = 0;
#ifdef __F16C__
  for (; i + 8 <= from.size(); i += 8) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from.data() + i));
    _mm256_storeu_ps(to.data() + i, _mm256_cvtph_ps(halves));
  }
#endif
  for (; i < from.size(); ++i) to[i] = from_half(from[i]);
}

}  // namespace depthkv
