// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "depthkv/error.h"
#include "device/schedules.h"
#include "kernels/accumulate_losses/accumulate_losses.h"
#include "kernels/cases.h"
#include "kernels/set_losses/set_losses.h"

namespace depthkv {
namespace {

using Orders = std::vector<std::vector<std::uint32_t>>;

// The first ascending, the others drawn.
Orders orders_of(std::size_t count, std::int64_t entries) {
  Orders orders(count, std::vector<std::uint32_t>(static_cast<std::size_t>(entries)));
  std::mt19937_64 random(3);
  for (std::size_t i = 0; i < count; ++i) {
    std::iota(orders[i].begin(), orders[i].end(), 0U);
    if (i > 0) std::shuffle(orders[i].begin(), orders[i].end(), random);
  }
  return orders;
}

using Accumulate = void (*)(const LossInput&, std::span<LossCurves>);
std::vector<LossCurves> curves_of(Accumulate accumulate, const View& attention, const View& values,
                                  const Orders& orders) {
  const std::vector<std::span<const std::uint32_t>> rankings(orders.begin(), orders.end());
  std::vector<LossCurves> curves(orders.size(), LossCurves(static_cast<std::int64_t>(orders.front().size())));
  accumulate({attention, values, rankings}, curves);
  return curves;
}

void expect_near(const LossCurves& found, const LossCurves& expected) {
  ASSERT_EQ(found.rows, expected.rows);
  ASSERT_NEAR(found.energy, expected.energy, 1e-5 * (1 + expected.energy));
  for (std::size_t k = 0; k < found.mass.size(); ++k) {
    // Masses are sums in double of the same floats; in the errors, values are added up in float.
    ASSERT_NEAR(found.mass[k], expected.mass[k], 1e-9 * static_cast<double>(1 + found.rows)) << k;
    ASSERT_NEAR(found.error[k], expected.error[k], 2e-3 * (1e-3 + expected.error[k])) << k;
  }
  EXPECT_EQ(found.mass.back(), static_cast<double>(found.rows));
  EXPECT_EQ(found.error.back(), 0.0);
}

void expect_equal(const LossCurves& a, const LossCurves& b) {
  EXPECT_EQ(a.mass, b.mass);
  EXPECT_EQ(a.error, b.error);
  EXPECT_EQ(a.energy, b.energy);
  EXPECT_EQ(a.rows, b.rows);
}

class DeviceLosses : public testing::TestWithParam<KernelCase> {
 protected:
  View attention() const { return in_.attention.view().head_range(0, GetParam().group); }
  View values() const { return in_.values.view().head_range(0, 1); }
  KernelInputs in_{GetParam(), 7};
  std::int64_t entries_ = GetParam().tokens - GetParam().tokens / 5;  // the rest can't be pruned
};
INSTANTIATE_TEST_SUITE_P(Cases, DeviceLosses, testing::ValuesIn(kDeviceCases),
                         [](const auto& test) { return test.param.name; });

TEST_P(DeviceLosses, AreTheReferencesUnderEverySchedule) {
  const Orders orders = orders_of(2, entries_);
  const auto expected = curves_of(reference::accumulate_losses, attention(), values(), orders);
  std::vector<LossCurves> first;
  under_schedules([&] {
    const auto found = curves_of(cuda::accumulate_losses, attention(), values(), orders);
    if (first.empty()) first = found;
    for (std::size_t i = 0; i < orders.size(); ++i) {
      expect_near(found[i], expected[i]);
      expect_equal(found[i], first[i]);
    }
  });
}

TEST_P(DeviceLosses, OfSetsAreTheReferencesUnderEverySchedule) {
  const std::vector<std::uint32_t> order = orders_of(2, entries_)[1];
  for (const std::size_t count : {std::size_t{0}, std::size_t{1}, order.size() / 3, order.size()}) {
    const auto kept = std::span(order).first(std::min(count, order.size()));
    const SetInput input{attention(), values(), kept, entries_};
    const SetLosses expected = reference::set_losses(input);
    std::optional<SetLosses> first;
    under_schedules([&] {
      const SetLosses found = cuda::set_losses(input);
      if (!first) first = found;
      ASSERT_EQ(found.rows, expected.rows);
      ASSERT_NEAR(found.mass, expected.mass, 1e-9 * static_cast<double>(1 + found.rows));
      ASSERT_NEAR(found.energy, expected.energy, 1e-5 * (1 + expected.energy));
      ASSERT_NEAR(found.error, expected.error, 2e-3 * (1e-3 + expected.error));
      ASSERT_EQ(found.mass, first->mass);
      ASSERT_EQ(found.error, first->error);
    });
    if (kept.size() == order.size()) {
      EXPECT_EQ(first->mass, static_cast<double>(first->rows));
      EXPECT_EQ(first->error, 0.0);
    }
  }
}

TEST(DeviceLossesEdges, WhereNothingIsKeptNothingIsDivided) {
  // One key has it all; before it joins, rows are numerically empty.
  Tensor attention(1, 3, 40);
  for (std::int64_t r = 0; r < 3; ++r) attention.row(0, r)[39] = 1.0F;
  const KernelInputs in({"", 1, 1, 40, 3, 8}, 1);
  const Orders orders = orders_of(1, 40);
  const auto found = curves_of(cuda::accumulate_losses, attention.view(), in.values.view(), orders);
  for (std::size_t k = 0; k < 40; ++k) {
    EXPECT_EQ(found[0].mass[k], 0.0);
    EXPECT_NEAR(found[0].error[k], found[0].energy, 1e-6 * found[0].energy);
  }
}

TEST(DeviceLossesEdges, NanSpreadsOverErrorsAndIsNotLost) {
  KernelInputs in({"", 1, 1, 50, 20, 8}, 1);
  in.attention.row(0, 17)[5] = std::numeric_limits<float>::quiet_NaN();
  const auto found = curves_of(cuda::accumulate_losses, in.attention.view(), in.values.view(), orders_of(1, 50));
  EXPECT_TRUE(std::isnan(found[0].error[0]));
  EXPECT_TRUE(std::isnan(found[0].energy));
  EXPECT_FALSE(std::isnan(found[0].mass[5]));
  EXPECT_TRUE(std::isnan(found[0].mass[6]));
}

TEST(DeviceLossesEdges, WideHeadsAreRefusedByName) {
  const KernelInputs in({"", 1, 1, 5, 2, 257}, 1);
  try {
    curves_of(cuda::accumulate_losses, in.attention.view(), in.values.view(), orders_of(1, 5));
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("257 dimensions, expected at most 256"), std::string::npos);
  }
}

TEST(DeviceLossesEdges, NoEntriesThatCanBePruned) {
  const KernelInputs in({"", 1, 2, 33, 5, 64}, 1);
  const auto found = curves_of(cuda::accumulate_losses, in.attention.view(), in.values.view(), orders_of(2, 0));
  EXPECT_EQ(found[1].mass, std::vector<double>{10.0});
  EXPECT_EQ(found[1].error, std::vector<double>{0.0});
}

}  // namespace
}  // namespace depthkv
