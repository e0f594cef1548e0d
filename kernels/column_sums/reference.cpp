// SPDX-License-Identifier: Apache-2.0
#include "kernels/column_sums/column_sums.h"

namespace depthkv::reference {

Tensor column_sums(const View& rows) {
  Tensor sums(rows.heads, 1, rows.columns);
  for (std::int64_t h = 0; h < rows.heads; ++h) {
    for (std::size_t j = 0; j < static_cast<std::size_t>(rows.columns); ++j) {
      double sum = 0;
      for (std::int64_t r = 0; r < rows.rows; ++r) sum += static_cast<double>(rows.row(h, r)[j]);
      sums.row(h, 0)[j] = static_cast<float>(sum);
    }
  }
  return sums;
}

}  // namespace depthkv::reference
