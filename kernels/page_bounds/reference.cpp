// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/page_bounds/page_bounds.h"

namespace depthkv::reference {

PageBounds page_bounds(const View& keys, std::int64_t size) {
  const std::int64_t pages = pages_of(keys.rows, size);
  PageBounds bounds{Tensor(keys.heads, pages, keys.columns, std::numeric_limits<float>::infinity()),
                    Tensor(keys.heads, pages, keys.columns, -std::numeric_limits<float>::infinity())};
  for (std::int64_t g = 0; g < keys.heads; ++g) {
    for (std::int64_t j = 0; j < keys.rows; ++j) {
      for (std::size_t c = 0; c < static_cast<std::size_t>(keys.columns); ++c) {
        const float x = keys.row(g, j)[c];
        float& least = bounds.least.row(g, j / size)[c];
        float& most = bounds.most.row(g, j / size)[c];
        if (std::isnan(x) || x < least) least = x;
        if (std::isnan(x) || x > most) most = x;
      }
    }
  }
  return bounds;
}

Tensor page_scores(const View& queries, const PageBounds& bounds) {
  const std::int64_t group = queries.heads / bounds.most.heads();
  Tensor scores(queries.heads, queries.rows, bounds.most.rows());
  for (std::int64_t h = 0; h < queries.heads; ++h) {
    for (std::int64_t r = 0; r < queries.rows; ++r) {
      for (std::int64_t p = 0; p < bounds.most.rows(); ++p) {
        double sum = 0;
        for (std::size_t c = 0; c < static_cast<std::size_t>(queries.columns); ++c) {
          const double q = static_cast<double>(queries.row(h, r)[c]);
          const double low = q * static_cast<double>(bounds.least.row(h / group, p)[c]);
          const double high = q * static_cast<double>(bounds.most.row(h / group, p)[c]);
          sum += std::isnan(low) ? low : std::max(high, low);
        }
        scores.row(h, r)[static_cast<std::size_t>(p)] = static_cast<float>(sum);
      }
    }
  }
  return scores;
}

}  // namespace depthkv::reference
