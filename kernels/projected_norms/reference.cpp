// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "kernels/projected_norms/projected_norms.h"

namespace depthkv::reference {

Tensor projected_norms(const View& rows, const View& weights) {
  const std::int64_t group = weights.heads / rows.heads;
  Tensor norms(weights.heads, rows.rows, 2);
  for (std::int64_t h = 0; h < weights.heads; ++h) {
    for (std::int64_t r = 0; r < rows.rows; ++r) {
      double l1 = 0;
      double l2 = 0;
      for (std::size_t j = 0; j < static_cast<std::size_t>(weights.columns); ++j) {
        double product = 0;
        for (std::int64_t c = 0; c < weights.rows; ++c)
          product += static_cast<double>(rows.row(h / group, r)[static_cast<std::size_t>(c)]) *
                     static_cast<double>(weights.row(h, c)[j]);
        l1 += std::abs(product);
        l2 += product * product;
      }
      norms.row(h, r)[0] = static_cast<float>(l1);
      norms.row(h, r)[1] = static_cast<float>(std::sqrt(l2));
    }
  }
  return norms;
}

}  // namespace depthkv::reference
