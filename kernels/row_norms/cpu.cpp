// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cmath>
#include <numeric>

#include "kernels/row_norms/row_norms.h"

namespace depthkv::cpu {
namespace {

// Four sums side by side, added up in a fixed order.
template <class Term>
double sum_of(std::span<const float> row, Term term) {
  std::array<double, 4> sums{};
  std::size_t c = 0;
  for (; c + sums.size() <= row.size(); c += sums.size()) {
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += term(static_cast<double>(row[c + i]));
  }
  for (; c < row.size(); ++c) sums[0] += term(static_cast<double>(row[c]));
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

}  // namespace

Tensor row_norms(const View& rows, Norm norm) {
  Tensor norms(rows.heads, 1, rows.rows);
  for (std::int64_t h = 0; h < rows.heads; ++h) {
    const auto out = norms.row(h, 0);
    for (std::int64_t r = 0; r < rows.rows; ++r) {
      const auto row = rows.row(h, r);
      out[static_cast<std::size_t>(r)] =
          static_cast<float>(norm == Norm::l1 ? sum_of(row, [](double x) { return std::abs(x); })
                                              : std::sqrt(sum_of(row, [](double x) { return x * x; })));
    }
  }
  return norms;
}

}  // namespace depthkv::cpu
