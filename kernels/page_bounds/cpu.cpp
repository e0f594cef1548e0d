// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "kernels/attention_rows/blocks.h"
#include "kernels/page_bounds/page_bounds.h"

namespace depthkv::cpu {
namespace {

// Comparisons with NaN are false: it stays once it is there, and x != x lets it in.
void widen(std::span<const float> key, float* least, float* most) {
  for (std::size_t c = 0; c < key.size(); ++c) {
    const float x = key[c];
    const bool nan = x != x;
    least[c] = (x < least[c]) | nan ? x : least[c];
    most[c] = (x > most[c]) | nan ? x : most[c];
  }
}

}  // namespace

PageBounds page_bounds(const View& keys, std::int64_t size) {
  const std::int64_t pages = pages_of(keys.rows, size);
  PageBounds bounds{Tensor::unwritten(keys.heads, pages, keys.columns),
                    Tensor::unwritten(keys.heads, pages, keys.columns)};
  for (std::int64_t g = 0; g < keys.heads; ++g) {
    for (std::int64_t p = 0; p < pages; ++p) {
      const std::int64_t first = p * size;
      const std::int64_t end = std::min(first + size, keys.rows);
      float* least = bounds.least.row(g, p).data();
      float* most = bounds.most.row(g, p).data();
      std::ranges::copy(keys.row(g, first), least);
      std::ranges::copy(keys.row(g, first), most);
      for (std::int64_t j = first + 1; j < end; ++j) widen(keys.row(g, j), least, most);
    }
  }
  return bounds;
}

Tensor page_scores(const View& queries, const PageBounds& bounds) {
  const std::int64_t group = queries.heads / bounds.most.heads();
  Tensor scores = Tensor::unwritten(queries.heads, queries.rows, bounds.most.rows());
  const Tensor split = split_by_sign(queries);
  const Tensor both = side_by_side(bounds);
  for (std::int64_t g = 0; g < both.heads(); ++g) {
    const TransposedKeys pages(both.view(), g);
    for (std::int64_t h = g * group; h < (g + 1) * group; ++h) {
      for_products(pages, split.view().head_range(h, 1), [&](std::int64_t row, const float* products) {
        std::copy_n(products, both.rows(), scores.row(h, row).data());
      });
    }
  }
  return scores;
}

}  // namespace depthkv::cpu
