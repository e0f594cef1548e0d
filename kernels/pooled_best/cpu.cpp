// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <limits>

#include "kernels/pooled_best/pooled_best.h"

namespace depthkv::cpu {
namespace {

constexpr std::uint32_t kSign = 0x80000000U;

// Finite floats as integers of the same order.
std::uint32_t key_of(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  return (bits & kSign) != 0 ? ~bits : bits | kSign;
}
float from_key(std::uint32_t key) { return std::bit_cast<float>((key & kSign) != 0 ? key & ~kSign : ~key); }

class Search {
 public:
  explicit Search(const PooledLists& lists) : lists_(lists), better_(lists.costs.size()), equal_(lists.costs.size()) {}

  std::vector<std::int64_t> best(std::int64_t entries) {
    // The lowest threshold whose better items fit.
    std::uint32_t low = key_of(std::numeric_limits<float>::lowest());
    std::uint32_t high = key_of(std::numeric_limits<float>::max());
    while (low < high) {
      const std::uint32_t middle = low + (high - low) / 2;
      if (cost_above(from_key(middle)) <= entries) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    std::int64_t most = 0;
    for (std::size_t u = 0; u < better_.size(); ++u) {
      better_[u] = items(u, from_key(low), false);
      equal_[u] = items(u, from_key(low), true);
      most = std::max(most, equal_[u]);
    }
    // Of the equal ones those up to some place in their list, and at it what is left.
    const std::int64_t place = place_that_fits(most, entries);
    std::vector<std::int64_t> taken(better_.size());
    std::int64_t left = entries - cost_up_to(place);
    for (std::size_t u = 0; u < taken.size(); ++u) {
      const std::int64_t count = up_to(u, place);
      const std::int64_t part = count == place && place < equal_[u] ? std::min(left, lists_.costs[u]) : 0;
      taken[u] = count * lists_.costs[u] + part;
      left -= part;
    }
    return taken;
  }

 private:
  // How many items of a list are better than a threshold, or as good.
  std::int64_t items(std::size_t u, float threshold, bool or_equal) const {
    const auto list =
        lists_.scores.subspan(static_cast<std::size_t>(lists_.begins[u]),
                              static_cast<std::size_t>(std::min(lists_.most, lists_.begins[u + 1] - lists_.begins[u])));
    const auto end = std::partition_point(list.begin(), list.end(), [&](float score) {
      if (!lists_.factors.empty() && score < lists_.unscaled)
        score = static_cast<float>(static_cast<double>(score) * lists_.factors[u]);
      return or_equal ? score >= threshold : score > threshold;
    });
    return end - list.begin();
  }
  std::int64_t cost_above(float threshold) const {
    std::int64_t sum = 0;
    for (std::size_t u = 0; u < better_.size(); ++u) sum += items(u, threshold, false) * lists_.costs[u];
    return sum;
  }
  std::int64_t up_to(std::size_t u, std::int64_t place) const { return std::clamp(place, better_[u], equal_[u]); }
  std::int64_t cost_up_to(std::int64_t place) const {
    std::int64_t sum = 0;
    for (std::size_t u = 0; u < better_.size(); ++u) sum += up_to(u, place) * lists_.costs[u];
    return sum;
  }
  std::int64_t place_that_fits(std::int64_t most, std::int64_t entries) const {
    std::int64_t place = 0;
    while (place < most) {
      const std::int64_t middle = (place + most + 1) / 2;
      if (cost_up_to(middle) <= entries) {
        place = middle;
      } else {
        most = middle - 1;
      }
    }
    return place;
  }

  const PooledLists& lists_;
  std::vector<std::int64_t> better_;
  std::vector<std::int64_t> equal_;
};

}  // namespace

std::vector<std::int64_t> pooled_best(const PooledLists& lists, std::int64_t entries) {
  return Search(lists).best(entries);
}

}  // namespace depthkv::cpu
