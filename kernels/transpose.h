// SPDX-License-Identifier: Apache-2.0
// Small matrices turned around in registers.
#pragma once
#include <cstddef>
#include <cstring>

namespace depthkv {

// to[c * to_stride + r] = from[r][c] for eight rows and the first 8 columns.
inline void transpose_eight(const float* const (&from)[8], float* to, std::size_t to_stride) {
  typedef float Eight __attribute__((vector_size(8 * sizeof(float))));
  Eight a[8];
  for (std::size_t r = 0; r < 8; ++r) std::memcpy(&a[r], from[r], sizeof(Eight));
  // Within halves of four columns: pairs, then fours; then halves change places.
  Eight b[8];
  for (std::size_t r = 0; r < 8; r += 2) {
    b[r] = __builtin_shufflevector(a[r], a[r + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    b[r + 1] = __builtin_shufflevector(a[r], a[r + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  Eight c[8];
  for (std::size_t r = 0; r < 8; r += 4) {
    for (std::size_t i = 0; i < 2; ++i) {
      c[r + 2 * i] = __builtin_shufflevector(b[r + i], b[r + i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
      c[r + 2 * i + 1] = __builtin_shufflevector(b[r + i], b[r + i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    }
  }
  for (std::size_t i = 0; i < 4; ++i) {
    const Eight low = __builtin_shufflevector(c[i], c[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    const Eight high = __builtin_shufflevector(c[i], c[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    std::memcpy(to + i * to_stride, &low, sizeof low);
    std::memcpy(to + (i + 4) * to_stride, &high, sizeof high);
  }
}

}  // namespace depthkv
