// SPDX-License-Identifier: Apache-2.0
#include "kernels/column_sums/column_sums.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "device/schedules.h"
#include "kernels/cases.h"

namespace depthkv {
namespace {

class DeviceColumnSums : public testing::TestWithParam<KernelCase> {};
INSTANTIATE_TEST_SUITE_P(Cases, DeviceColumnSums, testing::ValuesIn(kDeviceCases),
                         [](const auto& test) { return test.param.name; });

TEST_P(DeviceColumnSums, AreTheReferencesBitsUnderEverySchedule) {
  const KernelInputs in(GetParam(), 11);
  const Tensor expected = reference::column_sums(in.attention.view());
  under_schedules([&] {
    const Tensor found = cuda::column_sums(in.attention.view());
    ASSERT_EQ(found.heads(), expected.heads());
    ASSERT_EQ(found.columns(), expected.columns());
    for (std::size_t i = 0; i < expected.values().size(); ++i) ASSERT_EQ(found.values()[i], expected.values()[i]) << i;
  });
}

TEST(DeviceColumnSums, ViewsAreReadWithTheirStrides) {
  const KernelInputs in({"", 3, 1, 90, 21, 8}, 2);
  const View part = in.attention.view().head_range(1, 2).row_range(3, 11).column_range(5, 70);
  const Tensor expected = reference::column_sums(part);
  const Tensor found = cuda::column_sums(part);
  for (std::size_t i = 0; i < expected.values().size(); ++i) ASSERT_EQ(found.values()[i], expected.values()[i]) << i;
}

TEST(DeviceColumnSums, NanStaysInItsColumn) {
  Tensor rows(1, 5, 300, 1.0F);
  rows.row(0, 2)[257] = std::numeric_limits<float>::quiet_NaN();
  const Tensor sums = cuda::column_sums(rows.view());
  for (std::size_t j = 0; j < 300; ++j) EXPECT_EQ(std::isnan(sums.values()[j]), j == 257) << j;
}

}  // namespace
}  // namespace depthkv
