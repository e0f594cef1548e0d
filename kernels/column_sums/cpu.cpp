// SPDX-License-Identifier: Apache-2.0
// Eight rows at a time, so that the running sums are loaded and stored once for eight; each column still adds its rows
// in rising order.
#include <vector>

#include "kernels/column_sums/column_sums.h"

namespace depthkv::cpu {
namespace {

constexpr std::int64_t kRows = 8;

void add_eight(const View& rows, std::int64_t first, std::span<double> sums) {
  const float* from[kRows];
  for (std::int64_t r = 0; r < kRows; ++r) from[r] = rows.row(0, first + r).data();
  double* out = sums.data();
  for (std::size_t j = 0; j < sums.size(); ++j) {
    double sum = out[j];
    for (const float* row : from) sum += static_cast<double>(row[j]);
    out[j] = sum;
  }
}

}  // namespace

void add_rows(const View& rows, std::span<double> sums) {
  std::int64_t r = 0;
  for (; r + kRows <= rows.rows; r += kRows) add_eight(rows, r, sums);
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
