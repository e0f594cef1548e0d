// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <numeric>

#include "depthkv/allocation.h"
#include "depthkv/error.h"
#include "depthkv/shape.h"

namespace depthkv {
namespace {

TEST(Budget, RoundsOnceToTheNearestEntry) {
  const Shape shape{10, {{4, 2, 8}, {4, 2, 8}}};  // 40 entries
  EXPECT_EQ(budget_from_keep(shape, 0.5).entries, 20);
  EXPECT_EQ(budget_from_keep(shape, 0.26).entries, 10);    // 10.4
  EXPECT_EQ(budget_from_keep(shape, 0.2625).entries, 11);  // 10.5 goes up
  EXPECT_EQ(budget_from_keep(shape, 1.0).entries, 40);
  EXPECT_EQ(budget_from_keep(shape, 1e-9).entries, 4);  // at least one per head
}

TEST(Budget, RejectsKeepOutsideItsRange) {
  const Shape shape{10, {{4, 2, 8}}};
  for (const double keep : {0.0, -0.1, 1.0001, std::nan("")})
    EXPECT_THROW(budget_from_keep(shape, keep), InputError) << keep;
}

TEST(ShareOut, GivesTheRemainderToTheLargestFractionsThenTheLowestIndex) {
  const std::vector<double> equal{1, 1, 1};
  const std::vector<std::int64_t> zero{0, 0, 0};
  const std::vector<std::int64_t> caps{10, 10, 10};
  EXPECT_EQ(share_out(8, equal, zero, caps), (std::vector<std::int64_t>{3, 3, 2}));
  const std::vector<double> skewed{1, 2, 5};
  EXPECT_EQ(share_out(8, skewed, zero, caps), (std::vector<std::int64_t>{1, 2, 5}));
}

TEST(ShareOut, RefillsWhatCapsPushBack) {
  const std::vector<double> weights{100, 1, 1, 0};
  const std::vector<std::int64_t> floors{0, 0, 0, 1};
  const std::vector<std::int64_t> caps{4, 10, 10, 10};
  EXPECT_EQ(share_out(15, weights, floors, caps), (std::vector<std::int64_t>{4, 5, 5, 1}));
  EXPECT_EQ(share_out(34, weights, floors, caps),
            (std::vector<std::int64_t>{4, 10, 10, 10}));  // weight 0 gets what's left
}

// A floor is a lower limit, not a head start: it changes nothing where the share is above it anyway.
TEST(ShareOut, LimitsThatDoNotBindChangeNothing) {
  const std::vector<double> weights{1, 2, 3};
  const std::vector<std::int64_t> caps{60, 60, 60};
  EXPECT_EQ(share_out(60, weights, std::vector<std::int64_t>{5, 5, 5}, caps), (std::vector<std::int64_t>{10, 20, 30}));
  EXPECT_EQ(share_out(60, weights, std::vector<std::int64_t>{15, 5, 5}, caps), (std::vector<std::int64_t>{15, 18, 27}));
}

TEST(ShareOut, RejectsWhatCannotBe) {
  const std::vector<std::int64_t> floors{1, 1};
  const std::vector<std::int64_t> caps{2, 2};
  EXPECT_THROW(share_out(1, std::vector<double>{1, 1}, floors, caps), Error);
  EXPECT_THROW(share_out(5, std::vector<double>{1, 1}, floors, caps), Error);
  EXPECT_THROW(share_out(3, std::vector<double>{1, std::nan("")}, floors, caps), Error);
  EXPECT_THROW(share_out(3, std::vector<double>{1, -1}, floors, caps), Error);
}

RC_GTEST_PROP(ShareOutProperty, IsExactAndWithinLimits, ()) {
  const auto units = *rc::gen::inRange<std::size_t>(1, 40);
  std::vector<double> weights(units);
  std::vector<std::int64_t> floors(units);
  std::vector<std::int64_t> caps(units);
  for (std::size_t u = 0; u < units; ++u) {
    weights[u] = static_cast<double>(*rc::gen::inRange(0, 1000)) / 7.0;
    floors[u] = *rc::gen::inRange(0, 50);
    caps[u] = floors[u] + *rc::gen::inRange(0, 2000);
  }
  const auto low = std::accumulate(floors.begin(), floors.end(), std::int64_t{0});
  const auto high = std::accumulate(caps.begin(), caps.end(), std::int64_t{0});
  const auto total = *rc::gen::inRange(low, high + 1);
  const auto shares = share_out(total, weights, floors, caps);
  RC_ASSERT(std::accumulate(shares.begin(), shares.end(), std::int64_t{0}) == total);
  for (std::size_t u = 0; u < units; ++u) RC_ASSERT(shares[u] >= floors[u] && shares[u] <= caps[u]);
  // One level serves all: where neither of two units is at a limit, their shares are as their weights, within rounding.
  for (std::size_t u = 1; u < units; ++u) {
    const auto free = [&](std::size_t i) {
      return weights[i] > 0 && shares[i] > floors[i] + 1 && shares[i] < caps[i] - 1;
    };
    if (!free(u) || !free(u - 1)) continue;
    const double level = static_cast<double>(shares[u]) / weights[u];
    RC_ASSERT(std::abs(level * weights[u - 1] - static_cast<double>(shares[u - 1])) <=
              1.01 * (1 + weights[u - 1] / weights[u]));
  }
}

}  // namespace
}  // namespace depthkv
