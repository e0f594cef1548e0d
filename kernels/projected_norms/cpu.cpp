// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <vector>

#include "kernels/loops/loops.h"
#include "kernels/projected_norms/projected_norms.h"

namespace depthkv::cpu {

Tensor projected_norms(const View& rows, const View& weights) {
  const std::int64_t group = weights.heads / rows.heads;
  const auto count = static_cast<std::size_t>(rows.rows);
  Tensor norms(weights.heads, rows.rows, 2);
  std::vector<double> l1(count);
  std::vector<double> l2(count);
  for (std::int64_t h = 0; h < weights.heads && count > 0; ++h) {
    l1.assign(count, 0.0);
    l2.assign(count, 0.0);
    loops().projected_sums(rows.row(h / group, 0).data(), static_cast<std::size_t>(rows.row_stride), count,
                           weights.row(h, 0).data(), static_cast<std::size_t>(weights.row_stride),
                           static_cast<std::size_t>(weights.rows), static_cast<std::size_t>(weights.columns), l1.data(),
                           l2.data());
    for (std::size_t r = 0; r < count; ++r) {
      norms.row(h, static_cast<std::int64_t>(r))[0] = static_cast<float>(l1[r]);
      norms.row(h, static_cast<std::int64_t>(r))[1] = static_cast<float>(std::sqrt(l2[r]));
    }
  }
  return norms;
}

}  // namespace depthkv::cpu
