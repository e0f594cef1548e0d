// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "device/schedules.h"
#include "kernels/cases.h"
#include "kernels/projected_norms/projected_norms.h"
#include "kernels/row_norms/row_norms.h"

namespace depthkv {
namespace {

class DeviceNorms : public testing::TestWithParam<KernelCase> {};
INSTANTIATE_TEST_SUITE_P(Cases, DeviceNorms, testing::ValuesIn(kDeviceCases),
                         [](const auto& test) { return test.param.name; });

TEST_P(DeviceNorms, OfRowsAreTheCpusBitsUnderEverySchedule) {
  const KernelInputs in(GetParam(), 3);
  const View odd = in.values.view().first_columns(GetParam().columns - 1);
  for (const Norm norm : {Norm::l1, Norm::l2}) {
    for (const View& rows : {in.values.view(), odd}) {
      const Tensor expected = cpu::row_norms(rows, norm);
      const Tensor exact = reference::row_norms(rows, norm);
      under_schedules([&] {
        const Tensor found = cuda::row_norms(rows, norm);
        for (std::size_t i = 0; i < exact.values().size(); ++i) {
          ASSERT_EQ(found.values()[i], expected.values()[i]) << i;
          ASSERT_NEAR(found.values()[i], exact.values()[i], 1e-7 * static_cast<double>(exact.values()[i])) << i;
        }
      });
    }
  }
}

TEST_P(DeviceNorms, OfProjectionsAreTheReferencesUnderEverySchedule) {
  const KernelInputs in(GetParam(), 4);
  // The shim takes a second for each 10^8 products.
  const View rows = in.values.view().row_range(0, std::min<std::int64_t>(in.values.rows(), 140));
  const View weights = in.weights.view().first_columns(std::min<std::int64_t>(in.weights.columns(), 97));
  const Tensor exact = reference::projected_norms(rows, weights);
  Tensor first;
  under_schedules([&] {
    const Tensor found = cuda::projected_norms(rows, weights);
    ASSERT_EQ(found.values().size(), exact.values().size());
    if (first.empty()) first = found;
    for (std::size_t i = 0; i < exact.values().size(); ++i) {
      ASSERT_NEAR(found.values()[i], exact.values()[i], 1e-5 * static_cast<double>(exact.values()[i])) << i;
      ASSERT_EQ(found.values()[i], first.values()[i]) << i;
    }
  });
}

TEST(DeviceNormsEdges, NanStaysInItsRow) {
  KernelInputs in({"", 2, 1, 70, 1, 33}, 1);
  in.values.row(1, 65)[32] = std::numeric_limits<float>::quiet_NaN();
  const Tensor norms = cuda::row_norms(in.values.view(), Norm::l2);
  const Tensor projected = cuda::projected_norms(in.values.view(), in.weights.view());
  for (std::int64_t h = 0; h < 2; ++h) {
    for (std::int64_t r = 0; r < 70; ++r) {
      const bool expected = h == 1 && r == 65;
      EXPECT_EQ(std::isnan(norms.row(h, 0)[static_cast<std::size_t>(r)]), expected);
      EXPECT_EQ(std::isnan(projected.row(h, r)[0]), expected);
      EXPECT_EQ(std::isnan(projected.row(h, r)[1]), expected);
    }
  }
}

}  // namespace
}  // namespace depthkv
