// SPDX-License-Identifier: Apache-2.0
#include "kernels/hide_entries/hide_entries.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/cases.h"

namespace depthkv {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(HideEntries, HidesFromEachRowWhatItsSetHolds) {
  const std::vector<std::uint32_t> bits{0b101, 0, 0b1000, ~0U};  // [KV head][set]
  for (const Device device : {Device::cpu, Device::reference}) {
    Tensor logits(4, 3, 4, 1);
    ops_for(device).hide_entries({logits.values().data(), 4, 3, 4}, {bits.data(), 2, 2, 1},
                                 std::vector<std::uint32_t>{1, 0, 1});
    for (const std::int64_t head : {0, 1}) {
      EXPECT_THAT(logits.row(head, 0), testing::Each(1));
      EXPECT_THAT(logits.row(head, 1), testing::ElementsAre(-kInfinity, 1, -kInfinity, 1));
      EXPECT_THAT(logits.row(head, 2), testing::Each(1));
    }
    for (const std::int64_t head : {2, 3}) {
      EXPECT_THAT(logits.row(head, 0), testing::Each(-kInfinity));
      EXPECT_THAT(logits.row(head, 1), testing::ElementsAre(1, 1, 1, -kInfinity));
      EXPECT_THAT(logits.row(head, 2), testing::Each(-kInfinity));
    }
  }
}

TEST(HideEntries, ColumnsBehindTheSetsLastWordStay) {
  const std::vector<std::uint32_t> bits{~0U};
  for (const Device device : {Device::cpu, Device::reference}) {
    Tensor logits(1, 1, 70, 2);
    ops_for(device).hide_entries({logits.values().data(), 1, 1, 70}, {bits.data(), 1, 1, 1},
                                 std::vector<std::uint32_t>{0});
    for (std::size_t j = 0; j < 70; ++j) EXPECT_EQ(logits.values()[j], j < 32 ? -kInfinity : 2) << j;
  }
}

TEST(HideEntries, WhateverIsThereIsHidden) {
  const std::vector<std::uint32_t> bits{0b111};
  std::vector<float> logits{std::nanf(""), kInfinity, -kInfinity, std::nanf("")};
  ops_for(Device::cpu).hide_entries({logits.data(), 1, 1, 4}, {bits.data(), 1, 1, 1}, std::vector<std::uint32_t>{0});
  EXPECT_THAT(std::span(logits).first(3), testing::Each(-kInfinity));
  EXPECT_TRUE(std::isnan(logits[3]));
}

RC_GTEST_PROP(HideEntriesProperty, IsTheReferences, ()) {
  const auto kv_heads = *rc::gen::inRange<std::int64_t>(1, 4);
  const auto heads = kv_heads * *rc::gen::inRange<std::int64_t>(1, 4);
  const auto rows = *rc::gen::inRange<std::int64_t>(0, 6);
  const auto width = *rc::gen::inRange<std::int64_t>(0, 150);
  const auto columns = *rc::gen::inRange<std::int64_t>(0, 200);
  const HiddenColumns hidden(kv_heads, *rc::gen::inRange<std::int64_t>(1, 5), columns, rows,
                             *rc::gen::arbitrary<std::uint64_t>());
  Tensor a(heads, rows, width);
  std::mt19937_64 random(1);
  KernelInputs::fill(a.values(), random);
  Tensor b = a;
  ops_for(Device::cpu).hide_entries({a.values().data(), heads, rows, width}, hidden.view(), hidden.row_sets);
  ops_for(Device::reference).hide_entries({b.values().data(), heads, rows, width}, hidden.view(), hidden.row_sets);
  RC_ASSERT(std::ranges::equal(a.values(), b.values()));
}

}  // namespace
}  // namespace depthkv
