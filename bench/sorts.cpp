// SPDX-License-Identifier: Apache-2.0
#include "bench/sorts.h"

#include <hwy/contrib/sort/vqsort.h>

#include <algorithm>
#include <bit>
#include <boost/sort/pdqsort/pdqsort.hpp>
#include <boost/sort/spreadsort/integer_sort.hpp>
#include <numeric>
#include <span>

namespace depthkv {
namespace {

std::uint32_t descending_bits(float score) {
  const auto bits = std::bit_cast<std::uint32_t>(score == 0.0F ? 0.0F : score);
  return ~((bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U);
}

// Sorts of positions that look scores up.
template <class Sort>
void by_position(const View& scores, std::vector<std::uint32_t>& orders, Sort sort) {
  const auto n = static_cast<std::size_t>(scores.columns);
  orders.resize(static_cast<std::size_t>(scores.heads) * n);
  for (std::int64_t g = 0; g < scores.heads; ++g) {
    const auto order = std::span(orders).subspan(static_cast<std::size_t>(g) * n, n);
    std::iota(order.begin(), order.end(), 0U);
    sort(order, scores.row(g, 0));
  }
}

void stable_sort(const View& scores, std::vector<std::uint32_t>& orders) {
  by_position(scores, orders, [](std::span<std::uint32_t> order, std::span<const float> score) {
    std::stable_sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) { return score[a] > score[b]; });
  });
}

void sort_positions(const View& scores, std::vector<std::uint32_t>& orders) {
  by_position(scores, orders, [](std::span<std::uint32_t> order, std::span<const float> score) {
    std::sort(order.begin(), order.end(),
              [&](std::uint32_t a, std::uint32_t b) { return score[a] > score[b] || (score[a] == score[b] && a < b); });
  });
}

// Sorts of the score's bits above the position.
template <class Sort>
void by_key(const View& scores, std::vector<std::uint32_t>& orders, Sort sort) {
  const auto n = static_cast<std::size_t>(scores.columns);
  orders.resize(static_cast<std::size_t>(scores.heads) * n);
  std::vector<std::uint64_t> keys(n);
  for (std::int64_t g = 0; g < scores.heads; ++g) {
    const auto score = scores.row(g, 0);
    for (std::size_t j = 0; j < n; ++j) keys[j] = std::uint64_t{descending_bits(score[j])} << 32 | j;
    sort(keys);
    std::uint32_t* out = orders.data() + static_cast<std::size_t>(g) * n;
    for (std::size_t j = 0; j < n; ++j) out[j] = static_cast<std::uint32_t>(keys[j]);
  }
}

void sort_keys(const View& scores, std::vector<std::uint32_t>& orders) {
  by_key(scores, orders, [](std::vector<std::uint64_t>& keys) { std::sort(keys.begin(), keys.end()); });
}

void pdqsort(const View& scores, std::vector<std::uint32_t>& orders) {
  by_key(scores, orders,
         [](std::vector<std::uint64_t>& keys) { boost::sort::pdqsort_branchless(keys.begin(), keys.end()); });
}

void spreadsort(const View& scores, std::vector<std::uint32_t>& orders) {
  by_key(scores, orders,
         [](std::vector<std::uint64_t>& keys) { boost::sort::spreadsort::integer_sort(keys.begin(), keys.end()); });
}

void vqsort(const View& scores, std::vector<std::uint32_t>& orders) {
  by_key(scores, orders, [](std::vector<std::uint64_t>& keys) {
    hwy::Sorter sorter;
    sorter(keys.data(), keys.size(), hwy::SortAscending());
  });
}

}  // namespace

const std::vector<SegmentedSort>& segmented_sorts() {
  static const std::vector<SegmentedSort> sorts{{"std::stable_sort of positions", stable_sort},
                                                {"std::sort of positions", sort_positions},
                                                {"std::sort of keys", sort_keys},
                                                {"boost pdqsort of keys", pdqsort},
                                                {"boost spreadsort of keys", spreadsort},
                                                {"Highway vqsort of keys", vqsort}};
  return sorts;
}

}  // namespace depthkv
