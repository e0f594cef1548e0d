// SPDX-License-Identifier: Apache-2.0
// Row by row, so that memory is read in order; each column still adds its rows in rising order.
#include <vector>

#include "kernels/column_sums/column_sums.h"

namespace depthkv::cpu {

Tensor column_sums(const View& rows) {
  Tensor sums(rows.heads, 1, rows.columns);
  std::vector<double> wide(static_cast<std::size_t>(rows.columns));
  for (std::int64_t h = 0; h < rows.heads; ++h) {
    wide.assign(wide.size(), 0.0);
    for (std::int64_t r = 0; r < rows.rows; ++r) {
      const auto row = rows.row(h, r);
      for (std::size_t j = 0; j < wide.size(); ++j) wide[j] += static_cast<double>(row[j]);
    }
    const auto out = sums.row(h, 0);
    for (std::size_t j = 0; j < wide.size(); ++j) out[j] = static_cast<float>(wide[j]);
  }
  return sums;
}

}  // namespace depthkv::cpu
