// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "kernels/row_norms/row_norms.h"

namespace depthkv::reference {

Tensor row_norms(const View& rows, Norm norm) {
  Tensor norms(rows.heads, 1, rows.rows);
  for (std::int64_t h = 0; h < rows.heads; ++h) {
    for (std::int64_t r = 0; r < rows.rows; ++r) {
      double sum = 0;
      for (const float x : rows.row(h, r))
        sum += norm == Norm::l1 ? std::abs(static_cast<double>(x)) : static_cast<double>(x) * static_cast<double>(x);
      norms.row(h, 0)[static_cast<std::size_t>(r)] = static_cast<float>(norm == Norm::l1 ? sum : std::sqrt(sum));
    }
  }
  return norms;
}

}  // namespace depthkv::reference
