// SPDX-License-Identifier: Apache-2.0
// Eight floats worked on at once (a vector type of GCC and Clang). Private to the CPU kernels. Products and sums aren't
// fused, so that every machine gives the same bits.
#pragma once
#include <cstddef>
#include <cstring>

namespace depthkv {

constexpr std::size_t kLanes = 8;
typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float))));

inline Lanes load(const float* from) {
  Lanes x;
  std::memcpy(&x, from, sizeof(x));
  return x;
}
inline void store(float* to, Lanes x) { std::memcpy(to, &x, sizeof(x)); }
inline Lanes all(float x) { return Lanes{x, x, x, x, x, x, x, x}; }

}  // namespace depthkv
