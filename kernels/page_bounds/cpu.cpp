// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>

#include "kernels/attention_rows/blocks.h"
#include "kernels/page_bounds/page_bounds.h"

namespace depthkv::cpu {
namespace {

constexpr std::size_t kLanes = 16;  // channels whose bounds stay in registers

// Of a page's keys [count][stride], from a channel on. Comparisons with NaN are false: it stays once it is there, and
// x != x lets it in.
template <std::size_t Channels>
void widen(const float* keys, std::int64_t count, std::int64_t stride, float* least, float* most) {
  std::array<float, Channels> low;
  std::copy_n(keys, Channels, low.begin());
  std::array<float, Channels> high = low;
  for (std::int64_t j = 1; j < count; ++j) {
    for (std::size_t c = 0; c < Channels; ++c) {
      const float x = keys[j * stride + static_cast<std::int64_t>(c)];
      const bool nan = x != x;
      low[c] = (x < low[c]) | nan ? x : low[c];
      high[c] = (x > high[c]) | nan ? x : high[c];
    }
  }
  std::ranges::copy(low, least);
  std::ranges::copy(high, most);
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
      const std::span<const float> key = keys.row(g, first);
      float* least = bounds.least.row(g, p).data();
      float* most = bounds.most.row(g, p).data();
      std::size_t c = 0;
      for (; c + kLanes <= key.size(); c += kLanes)
        widen<kLanes>(key.data() + c, end - first, keys.row_stride, least + c, most + c);
      for (; c < key.size(); ++c) widen<1>(key.data() + c, end - first, keys.row_stride, least + c, most + c);
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
