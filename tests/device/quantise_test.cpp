// SPDX-License-Identifier: Apache-2.0
#include "kernels/quantise/quantise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "device/schedules.h"
#include "kernels/cases.h"

namespace depthkv {
namespace {

using Along = QuantiseSpec::Along;

void expect_same(const Tensor& found, const Tensor& expected) {
  ASSERT_EQ(found.values().size(), expected.values().size());
  for (std::size_t i = 0; i < expected.values().size(); ++i) {
    ASSERT_EQ(std::isnan(found.values()[i]), std::isnan(expected.values()[i])) << i;
    if (!std::isnan(expected.values()[i])) {
      ASSERT_EQ(found.values()[i], expected.values()[i]) << i;
    }
  }
}

class DeviceQuantise : public testing::TestWithParam<KernelCase> {};
INSTANTIATE_TEST_SUITE_P(Cases, DeviceQuantise, testing::ValuesIn(kDeviceCases),
                         [](const auto& test) { return test.param.name; });

TEST_P(DeviceQuantise, GivesTheReferencesBitsUnderEverySchedule) {
  const KernelInputs in(GetParam(), 5);
  const std::vector<QuantiseSpec> specs = specs_for<QuantiseSpec>(
      GetParam(),
      {{4, Along::channels, 32}, {2, Along::tokens, 32}, {8, Along::channels, 7}, {1, Along::tokens, 100000}});
  for (const QuantiseSpec& spec : specs) {
    const Tensor expected = reference::quantise(in.values.view(), spec);
    under_schedules([&] { expect_same(cuda::quantise(in.values.view(), spec), expected); });
  }
}

TEST(DeviceQuantiseEdges, NanInfinitiesEqualValuesAndStridedViews) {
  KernelInputs in({"", 2, 1, 50, 1, 40}, 1);
  in.values.row(0, 3)[4] = std::numeric_limits<float>::quiet_NaN();
  in.values.row(1, 49)[39] = -std::numeric_limits<float>::infinity();
  for (std::int64_t j = 0; j < 50; ++j) in.values.row(1, j)[7] = 0.3F;
  const View part = in.values.view().row_range(1, 49).column_range(2, 38);
  for (const Along along : {Along::tokens, Along::channels})
    expect_same(cuda::quantise(part, {2, along, 16}), reference::quantise(part, {2, along, 16}));
}

}  // namespace
}  // namespace depthkv
