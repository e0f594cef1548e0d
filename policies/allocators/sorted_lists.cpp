// SPDX-License-Identifier: Apache-2.0
#include "policies/allocators/sorted_lists.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "depthkv/ops.h"

namespace depthkv {
void SortedLists::add(std::span<const float> scores, std::int64_t cost) {
  for (const float score : scores) {
    const bool first = static_cast<std::int64_t>(scores_.size()) == begins_.back();
    scores_.push_back(first ? score : std::min(score, scores_.back()));
  }
  begins_.push_back(static_cast<std::int64_t>(scores_.size()));
  costs_.push_back(cost);
}

std::vector<std::int64_t> SortedLists::best(std::int64_t entries, std::span<const double> factors,
                                            std::int64_t most) const {
  return ops_for(Device::cpu).pooled_best({scores_, begins_, costs_, factors, kForced, most}, entries);
}

std::vector<float> falling_scores(const HeadInput& input, std::int64_t head, std::int64_t skip) {
  const auto scores = input.scores.row(head, 0);
  std::vector<float> falling;
  for (const std::uint32_t j : input.ranking->head(head).subspan(static_cast<std::size_t>(skip)))
    falling.push_back(scores[j]);
  // A ranking of two stages (structure critical) has its entries in another order; what competes are the scores.
  std::ranges::sort(falling, std::greater<>());
  return falling;
}

SortedLists pool_of(const LayerInput& input, std::int64_t skip) {
  SortedLists pool;
  for (std::size_t l = 0; l < input.shape.layers.size(); ++l) {
    const HeadInput ranked = input.ranked(static_cast<int>(l));
    for (std::int64_t g = 0; g < ranked.scores.heads; ++g) pool.add(falling_scores(ranked, g, skip));
  }
  return pool;
}

std::vector<std::int64_t> per_layer(const Shape& shape, std::span<const std::int64_t> heads) {
  std::vector<std::int64_t> sums;
  for (const LayerShape& layer : shape.layers) {
    const auto own = heads.first(static_cast<std::size_t>(layer.kv_heads));
    sums.push_back(std::accumulate(own.begin(), own.end(), std::int64_t{0}));
    heads = heads.subspan(own.size());
  }
  return sums;
}

}  // namespace depthkv
