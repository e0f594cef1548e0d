// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <string>

#include "depthkv/error.h"
#include "kernels/page_bounds/page_bounds.h"

namespace depthkv {

std::int64_t pages_of(std::int64_t tokens, std::int64_t size) {
  if (size < 1) throw Error("pages of " + std::to_string(size) + " tokens, expected at least 1");
  return (tokens + size - 1) / size;
}

Tensor split_by_sign(const View& queries) {
  Tensor split(queries.heads, queries.rows, 2 * queries.columns);
  for (std::int64_t h = 0; h < queries.heads; ++h) {
    for (std::int64_t r = 0; r < queries.rows; ++r) {
      const auto from = queries.row(h, r);
      const auto to = split.row(h, r);
      for (std::size_t c = 0; c < from.size(); ++c) to[from[c] >= 0 ? c : from.size() + c] = from[c];
    }
  }
  return split;
}

Tensor side_by_side(const PageBounds& bounds) {
  const Tensor& most = bounds.most;
  Tensor both = Tensor::unwritten(most.heads(), most.rows(), 2 * most.columns());
  for (std::int64_t g = 0; g < most.heads(); ++g) {
    for (std::int64_t p = 0; p < most.rows(); ++p) {
      const auto middle = std::ranges::copy(most.row(g, p), both.row(g, p).begin()).out;
      std::ranges::copy(bounds.least.row(g, p), middle);
    }
  }
  return both;
}

}  // namespace depthkv
