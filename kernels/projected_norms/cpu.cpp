// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>

#include "kernels/loops/loops.h"
#include "kernels/projected_norms/projected_norms.h"

namespace depthkv::cpu {

Tensor projected_norms(const View& rows, const View& weights) {
  constexpr auto kRows = static_cast<std::int64_t>(kNormRows);
  const std::int64_t group = weights.heads / rows.heads;
  Tensor norms(weights.heads, rows.rows, 2);
  std::array<float, kNormRows> l1{};
  std::array<float, kNormRows> l2{};
  for (std::int64_t h = 0; h < weights.heads; ++h) {
    for (std::int64_t first = 0; first < rows.rows; first += kRows) {
      const std::int64_t count = std::min(kRows, rows.rows - first);
      loops().projected_norms(rows.row(h / group, first).data(), static_cast<std::size_t>(rows.row_stride),
                              static_cast<std::size_t>(count), weights.row(h, 0).data(),
                              static_cast<std::size_t>(weights.row_stride), static_cast<std::size_t>(weights.rows),
                              static_cast<std::size_t>(weights.columns), l1.data(), l2.data());
      for (std::int64_t r = 0; r < count; ++r) {
        norms.row(h, first + r)[0] = l1[static_cast<std::size_t>(r)];
        norms.row(h, first + r)[1] = l2[static_cast<std::size_t>(r)];
      }
    }
  }
  return norms;
}

}  // namespace depthkv::cpu
