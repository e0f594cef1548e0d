// SPDX-License-Identifier: Apache-2.0
#include "policies/allocators/sorted_lists.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <numeric>

namespace depthkv {
namespace {

constexpr std::uint32_t kSign = 0x80000000U;

// Finite floats as integers of the same order.
std::uint32_t key_of(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  return (bits & kSign) != 0 ? ~bits : bits | kSign;
}
float from_key(std::uint32_t key) { return std::bit_cast<float>((key & kSign) != 0 ? key & ~kSign : ~key); }

}  // namespace

void SortedLists::add(std::vector<float> scores, std::int64_t cost) {
  for (std::size_t i = 1; i < scores.size(); ++i) scores[i] = std::min(scores[i], scores[i - 1]);
  lists_.push_back({std::move(scores), cost});
}

std::vector<std::int64_t> SortedLists::best(std::int64_t entries, std::span<const double> factors,
                                            std::int64_t most) const {
  const std::size_t count = lists_.size();
  // Per list: how many items are better than a threshold, or as good.
  const auto items = [&](float threshold, bool or_equal) {
    std::vector<std::int64_t> above;
    for (std::size_t u = 0; u < count; ++u) {
      const auto& scores = lists_[u].scores;
      const auto end = scores.begin() + std::min(most, static_cast<std::int64_t>(scores.size()));
      const auto from = std::partition_point(scores.begin(), end, [&](float score) {
        if (!factors.empty() && score < kForced) score = static_cast<float>(static_cast<double>(score) * factors[u]);
        return or_equal ? score >= threshold : score > threshold;
      });
      above.push_back(from - scores.begin());
    }
    return above;
  };
  const auto cost_of = [&](const std::vector<std::int64_t>& counts) {
    std::int64_t sum = 0;
    for (std::size_t u = 0; u < count; ++u) sum += counts[u] * lists_[u].cost;
    return sum;
  };
  // The lowest threshold whose better items fit.
  std::uint32_t low = key_of(std::numeric_limits<float>::lowest());
  std::uint32_t high = key_of(std::numeric_limits<float>::max());
  while (low < high) {
    const std::uint32_t middle = low + (high - low) / 2;
    if (cost_of(items(from_key(middle), false)) <= entries) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  const std::vector<std::int64_t> better = items(from_key(low), false);
  const std::vector<std::int64_t> equal = items(from_key(low), true);
  // Of the equal ones those up to some place in their list.
  const auto up_to = [&](std::int64_t place) {
    std::vector<std::int64_t> counts(count);
    for (std::size_t u = 0; u < count; ++u) counts[u] = std::clamp(place, better[u], equal[u]);
    return counts;
  };
  std::int64_t place = 0;
  std::int64_t beyond = count == 0 ? 0 : *std::max_element(equal.begin(), equal.end());
  while (place < beyond) {
    const std::int64_t middle = (place + beyond + 1) / 2;
    if (cost_of(up_to(middle)) <= entries) {
      place = middle;
    } else {
      beyond = middle - 1;
    }
  }
  std::vector<std::int64_t> taken = up_to(place);
  std::int64_t left = entries - cost_of(taken);
  for (std::size_t u = 0; u < count; ++u) {
    const std::int64_t part = taken[u] == place && place < equal[u] ? std::min(left, lists_[u].cost) : 0;
    taken[u] = taken[u] * lists_[u].cost + part;
    left -= part;
  }
  return taken;
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
