// SPDX-License-Identifier: Apache-2.0
#include "kernels/page_bounds/page_bounds.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "depthkv/error.h"
#include "device/schedules.h"
#include "kernels/cases.h"

namespace depthkv {
namespace {

class DevicePageBounds : public testing::TestWithParam<KernelCase> {};
INSTANTIATE_TEST_SUITE_P(Cases, DevicePageBounds, testing::ValuesIn(kDeviceCases),
                         [](const auto& test) { return test.param.name; });

TEST_P(DevicePageBounds, AreTheCpusBitsUnderEverySchedule) {
  const KernelInputs in(GetParam(), 7);
  for (const std::int64_t size : {16, 7, 100000}) {
    const PageBounds expected = cpu::page_bounds(in.keys.view(), size);
    const Tensor scores = cpu::page_scores(in.queries.view(), expected);
    const Tensor exact = reference::page_scores(in.queries.view(), expected);
    under_schedules([&] {
      const PageBounds found = cuda::page_bounds(in.keys.view(), size);
      ASSERT_TRUE(std::ranges::equal(found.least.values(), expected.least.values()));
      ASSERT_TRUE(std::ranges::equal(found.most.values(), expected.most.values()));
      const Tensor found_scores = cuda::page_scores(in.queries.view(), found);
      ASSERT_EQ(found_scores.values().size(), scores.values().size());
      for (std::size_t i = 0; i < scores.values().size(); ++i) {
        ASSERT_EQ(found_scores.values()[i], scores.values()[i]) << i;
        ASSERT_NEAR(found_scores.values()[i], exact.values()[i],
                    1e-5 * (1 + static_cast<double>(std::abs(exact.values()[i]))))
            << i;
      }
    });
  }
}

TEST(DevicePageBoundsEdges, NanStaysInItsPageAndDimension) {
  KernelInputs in({"", 2, 1, 50, 3, 20}, 1);
  in.keys.row(1, 17)[4] = std::numeric_limits<float>::quiet_NaN();
  const PageBounds bounds = cuda::page_bounds(in.keys.view(), 16);
  for (std::int64_t g = 0; g < 2; ++g) {
    for (std::int64_t p = 0; p < 4; ++p) {
      for (std::size_t c = 0; c < 20; ++c) {
        EXPECT_EQ(std::isnan(bounds.least.row(g, p)[c]), g == 1 && p == 1 && c == 4);
        EXPECT_EQ(std::isnan(bounds.most.row(g, p)[c]), g == 1 && p == 1 && c == 4);
      }
    }
  }
  const Tensor scores = cuda::page_scores(in.queries.view(), bounds);
  for (std::int64_t h = 0; h < 2; ++h)
    for (std::size_t p = 0; p < 4; ++p) EXPECT_EQ(std::isnan(scores.row(h, 2)[p]), h == 1 && p == 1);
}

TEST(DevicePageBoundsEdges, NoTokensAndNoPages) {
  EXPECT_EQ(cuda::page_bounds(Tensor(2, 0, 8).view(), 4).most.rows(), 0);
  EXPECT_THROW(cuda::page_bounds(Tensor(2, 5, 8).view(), 0), Error);
}

}  // namespace
}  // namespace depthkv
