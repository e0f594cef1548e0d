// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention_rows/attention_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "device/schedules.h"
#include "kernels/cases.h"

namespace depthkv {
namespace {

class DeviceAttentionRows : public testing::TestWithParam<KernelCase> {};
INSTANTIATE_TEST_SUITE_P(Cases, DeviceAttentionRows, testing::ValuesIn(kDeviceCases),
                         [](const auto& test) { return test.param.name; });

// The reference within tolerance, the CPU to the bit: its scores are the device's.
TEST_P(DeviceAttentionRows, AreTheCpusBitsUnderEverySchedule) {
  const KernelInputs in(GetParam(), 7);
  for (const SoftmaxSpec spec : specs_for<SoftmaxSpec>(GetParam(), {{}, {0.125, 5.0}, {2.0, 0, 7}})) {
    const Tensor exact = reference::attention_rows(in.queries.view(), in.keys.view(), in.positions, spec);
    const Tensor expected = cpu::attention_rows(in.queries.view(), in.keys.view(), in.positions, spec);
    under_schedules([&] {
      const Tensor found = cuda::attention_rows(in.queries.view(), in.keys.view(), in.positions, spec);
      ASSERT_EQ(found.values().size(), expected.values().size());
      for (std::size_t i = 0; i < found.values().size(); ++i) {
        ASSERT_EQ(found.values()[i], expected.values()[i]) << i;
        ASSERT_NEAR(found.values()[i], exact.values()[i], 1e-6 + 2e-4 * static_cast<double>(exact.values()[i])) << i;
      }
    });
  }
}

TEST(DeviceAttentionRows, PositionsNeedNotRiseAndViewsMayBeStrided) {
  const KernelInputs in({"", 2, 2, 90, 21, 40}, 2);
  const std::vector<std::int32_t> positions{89, 3, 0, 40, 40, 17, 88};
  const View queries = in.queries.view().row_range(5, 7).column_range(8, 24);
  const View keys = in.keys.view().column_range(8, 24);
  const Tensor expected = cpu::attention_rows(queries, keys, positions, {});
  const Tensor found = cuda::attention_rows(queries, keys, positions, {});
  EXPECT_TRUE(std::ranges::equal(found.values(), expected.values()));
}

TEST(DeviceAttentionRows, NanStaysWhereItIsSeen) {
  KernelInputs in({"", 1, 2, 40, 4, 24}, 5);
  in.queries.row(1, 2)[9] = std::numeric_limits<float>::quiet_NaN();
  in.keys.row(0, 38)[3] = std::numeric_limits<float>::quiet_NaN();  // seen by the last two rows, at 38 and 39
  const Tensor rows = cuda::attention_rows(in.queries.view(), in.keys.view(), in.positions, {});
  for (std::int64_t h = 0; h < 2; ++h)
    for (std::int64_t r = 0; r < 4; ++r) EXPECT_EQ(std::isnan(rows.row(h, r)[0]), r >= 2) << h << ' ' << r;
}

}  // namespace
}  // namespace depthkv
