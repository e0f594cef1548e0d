// SPDX-License-Identifier: Apache-2.0
// Four rows at a time, so that the running sums are loaded and stored once for four; each column still adds its rows in
// rising order.
#include <vector>

#include "kernels/column_sums/column_sums.h"

namespace depthkv::cpu {
namespace {

void add_four(const View& rows, std::int64_t first, std::span<double> sums) {
  const float* a = rows.row(0, first).data();
  const float* b = rows.row(0, first + 1).data();
  const float* c = rows.row(0, first + 2).data();
  const float* d = rows.row(0, first + 3).data();
  double* out = sums.data();
  for (std::size_t j = 0; j < sums.size(); ++j)
    out[j] = (((out[j] + static_cast<double>(a[j])) + static_cast<double>(b[j])) + static_cast<double>(c[j])) +
             static_cast<double>(d[j]);
}

}  // namespace

void add_rows(const View& rows, std::span<double> sums) {
  std::int64_t r = 0;
  for (; r + 4 <= rows.rows; r += 4) add_four(rows, r, sums);
  for (; r < rows.rows; ++r) {
    const auto row = rows.row(0, r);
    for (std::size_t j = 0; j < sums.size(); ++j) sums[j] += static_cast<double>(row[j]);
  }
}

Tensor column_sums(const View& rows) {
  Tensor sums(rows.heads, 1, rows.columns);
  std::vector<double> wide(static_cast<std::size_t>(rows.columns));
  for (std::int64_t h = 0; h < rows.heads; ++h) {
    wide.assign(wide.size(), 0.0);
    add_rows(rows.head_range(h, 1), wide);
    const auto out = sums.row(h, 0);
    for (std::size_t j = 0; j < wide.size(); ++j) out[j] = static_cast<float>(wide[j]);
  }
  return sums;
}

}  // namespace depthkv::cpu
