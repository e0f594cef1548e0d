// SPDX-License-Identifier: Apache-2.0
#include "kernels/evidence_curves/evidence_curves.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "device/schedules.h"
#include "kernels/cases.h"

namespace depthkv {
namespace {

class DeviceEvidenceCurves : public testing::TestWithParam<KernelCase> {};
INSTANTIATE_TEST_SUITE_P(Cases, DeviceEvidenceCurves, testing::ValuesIn(kDeviceCases),
                         [](const auto& test) { return test.param.name; });

TEST_P(DeviceEvidenceCurves, AreTheReferencesBitsUnderEverySchedule) {
  const Ranking ranking = shuffled_ranking(GetParam().kv_heads, GetParam().tokens, 3);
  for (const std::size_t marks : {std::size_t{1}, std::size_t{7}, static_cast<std::size_t>(GetParam().tokens)}) {
    std::vector<std::uint8_t> marked(static_cast<std::size_t>(GetParam().tokens));
    for (std::size_t i = 0; i < marks; ++i) marked[i * 37 % marked.size()] = static_cast<std::uint8_t>(1 + i % 3);
    const Tensor expected = reference::evidence_curves(ranking, marked);
    under_schedules([&] {
      const Tensor found = cuda::evidence_curves(ranking, marked);
      ASSERT_TRUE(std::ranges::equal(found.values(), expected.values()));
    });
  }
}

TEST(DeviceEvidenceCurves, NothingMarkedGivesNothing) {
  EXPECT_TRUE(cuda::evidence_curves(shuffled_ranking(2, 5, 1), std::vector<std::uint8_t>(5)).empty());
  EXPECT_TRUE(cuda::evidence_curves(Ranking(2, 0), {}).empty());
}

}  // namespace
}  // namespace depthkv
