// SPDX-License-Identifier: Apache-2.0
// How ops share the device: parts where memory is short, two lanes, streams that are late.
#include "kernels/device_lane.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <thread>

#include "kernels/accumulate_losses/accumulate_losses.h"
#include "kernels/attention_rows/attention_rows.h"
#include "kernels/cases.h"
#include "kernels/parallel.h"
#include "kernels/rank/rank.h"
#include "kernels/row_norms/row_norms.h"
#include "kernels/set_losses/set_losses.h"
#include "kernels/simt/memory.h"

namespace depthkv {
namespace {

using testing::HasSubstr;

std::vector<std::vector<std::uint32_t>> three_orders(std::size_t entries) {
  std::vector<std::vector<std::uint32_t>> orders(3, std::vector<std::uint32_t>(entries));
  std::mt19937_64 random(1);
  for (auto& order : orders) {
    std::iota(order.begin(), order.end(), 0U);
    std::shuffle(order.begin(), order.end(), random);
  }
  return orders;
}

// Everything that replay asks a device for, as numbers.
std::vector<double> everything(const KernelInputs& in) {
  const auto orders = three_orders(in.keys.values().size() / 64 / 2 - 9);
  const std::vector<std::span<const std::uint32_t>> rankings(orders.begin(), orders.end());
  std::vector<LossCurves> curves(3, LossCurves(static_cast<std::int64_t>(orders[0].size())));
  const View attention = in.attention.view().head_range(0, 2);
  const View values = in.values.view().head_range(0, 1);
  cuda::accumulate_losses({attention, values, rankings}, curves);
  std::vector<double> all;
  for (const LossCurves& c : curves) {
    all.insert(all.end(), c.mass.begin(), c.mass.end());
    all.insert(all.end(), c.error.begin(), c.error.end());
    all.push_back(c.energy);
  }
  const SetLosses set = cuda::set_losses({attention, values, rankings[0].first(50), 100});
  all.insert(all.end(), {set.mass, set.error, set.energy});
  const Tensor rows = cuda::attention_rows(in.queries.view(), in.keys.view(), in.positions, {});
  all.insert(all.end(), rows.values().begin(), rows.values().end());
  const Tensor norms = cuda::row_norms(in.keys.view(), Norm::l2);
  const Ranking order = cuda::rank(norms.view(), {4, 8});
  for (std::int64_t h = 0; h < order.heads(); ++h) all.insert(all.end(), order.head(h).begin(), order.head(h).end());
  return all;
}

TEST(Lanes, LittleMemoryGivesTheSameBits) {
  const KernelInputs in({"", 2, 2, 300, 45, 64}, 3);
  cuda::trim_idle_lanes();
  const std::vector<double> expected = everything(in);
  for (const std::size_t kibibytes : {1000, 500, 360}) {
    cuda::trim_idle_lanes();
    const simt::WithMemory little(kibibytes << 10U);
    EXPECT_EQ(everything(in), expected) << kibibytes;
  }
}

TEST(Lanes, PinnedMemoryThatIsShortGivesTheSameBits) {
  const KernelInputs in({"", 2, 2, 130, 20, 64}, 3);
  cuda::trim_idle_lanes();
  const std::vector<double> expected = everything(in);
  int failed = 0;
  for (bool all = false; !all; ++failed) {
    cuda::trim_idle_lanes();
    const simt::WithScarcePinned scarce(failed);
    ASSERT_EQ(everything(in), expected) << failed;
    all = !scarce.has_failed();
  }
  EXPECT_GT(failed, 10);
}

TEST(Lanes, WhatDoesNotFitAtAllIsAnErrorThatSaysSo) {
  const KernelInputs in({"", 2, 2, 300, 45, 64}, 3);
  cuda::trim_idle_lanes();
  {
    const simt::WithMemory little(100 << 10U);
    try {
      everything(in);
      FAIL();
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("smaller parts don't fit either"));
      EXPECT_THAT(error.what(), HasSubstr("device: cpu"));
    }
  }
  EXPECT_FALSE(everything(in).empty());  // and the device is fit for more
}

TEST(Lanes, ThreadsShareThem) {
  const KernelInputs in({"", 2, 2, 120, 20, 64}, 3);
  const std::vector<double> expected = everything(in);
  std::vector<std::vector<double>> found(4);
  {
    std::vector<std::jthread> threads;
    for (auto& one : found) threads.emplace_back([&] { one = everything(in); });
  }
  for (const auto& one : found) EXPECT_EQ(one, expected);
}

// What one alone has just room for isn't refused because others have lanes at the same time.
TEST(Lanes, ThreadsWaitForEachOtherWhereMemoryIsShort) {
  const KernelInputs in({"", 2, 2, 130, 20, 64}, 3);
  const std::vector<double> expected = everything(in);
  cuda::trim_idle_lanes();
  const simt::WithMemory little(80 << 10U);
  std::vector<std::vector<double>> found(4);
  {
    std::vector<std::jthread> threads;
    for (auto& one : found) {
      threads.emplace_back([&] {
        try {
          one = everything(in);
        } catch (const Error& error) {
          ADD_FAILURE() << error.what();
        }
      });
    }
  }
  for (const auto& one : found) EXPECT_EQ(one, expected);
}

TEST(Lanes, WhoIsAloneHasWhatOthersLeftInTheLane) {
  cuda::trim_idle_lanes();
  const simt::WithMemory little(80 << 10U);
  cuda::UseLane()->room<char>(40 << 10U);
  const cuda::UseLane alone(cuda::UseLane::Beside::nobody);
  EXPECT_NO_THROW(alone->room<char>(70 << 10U));
}

// What the tests of the ops rest on: without the wait nothing has arrived.
TEST(Lanes, TheStreamIsLate) {
  const cuda::UseLane lane;
  const std::vector<float> numbers{1, 2, 3};
  const float* there = lane->upload(std::span(numbers));
  EXPECT_NE(there[0], 1.0F);
  lane->wait();
  EXPECT_EQ(there[0], 1.0F);
  const auto back = lane->download(there, 3);
  lane->wait();
  EXPECT_THAT(back, testing::ElementsAre(1, 2, 3));
}

TEST(Lanes, MemoryIsKeptFromCallToCall) {
  cuda::trim_idle_lanes();
  const auto used = [] { return simt::memory_left().free; };
  const KernelInputs in({"", 1, 1, 40, 4, 64}, 3);
  cuda::row_norms(in.keys.view(), Norm::l1);
  cuda::row_norms(in.keys.view(), Norm::l1);
  const std::size_t before = used();
  for (int i = 0; i < 5; ++i) cuda::row_norms(in.keys.view(), Norm::l1);
  EXPECT_EQ(used(), before);
  cuda::trim_idle_lanes();
  EXPECT_GT(used(), before);
}

TEST(Lanes, EachDeviceHasItsOwnAndItsOwnMemory) {
  const simt::WithDevices two(2);
  const KernelInputs in({"", 2, 2, 300, 45, 64}, 3);
  cuda::trim_idle_lanes();
  const std::vector<double> expected = everything(in);
  cuda::trim_idle_lanes();
  const simt::WithMemory little(700 << 10U);
  const cuda::DeviceArray<char> fills(600 << 10U);  // the first device
  EXPECT_THROW(everything(in), cuda::OutOfDeviceMemory);
  const UseDevice on(1);
  EXPECT_EQ(everything(in), expected);
}

TEST(Lanes, ThreadsOfALoopWorkForTheirCallersDevice) {
  const simt::WithDevices three(3);
  std::vector<int> found(8, -1);
  const UseDevice on(2);
  parallel_for(8, 4, [&](std::int64_t i) {
    const cuda::UseLane lane;
    found[static_cast<std::size_t>(i)] = simt::current_device();
  });
  EXPECT_THAT(found, testing::Each(2));
  {
    const UseDevice inside(1);
    EXPECT_EQ(device_of_thread(), 1);
  }
  EXPECT_EQ(device_of_thread(), 2);
}

}  // namespace
}  // namespace depthkv
