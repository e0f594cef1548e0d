// SPDX-License-Identifier: Apache-2.0
#include "kernels/merge/merge.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "device/schedules.h"
#include "kernels/cases.h"

namespace depthkv {
namespace {

class DeviceMerge : public testing::TestWithParam<KernelCase> {};
INSTANTIATE_TEST_SUITE_P(Cases, DeviceMerge, testing::ValuesIn(kDeviceCases),
                         [](const auto& test) { return test.param.name; });

// The CPU's neighbours, to the bit, and with them the reference's merged rows.
TEST_P(DeviceMerge, IsTheCpusUnderEverySchedule) {
  const KernelInputs in(GetParam(), 5);
  // The shim takes a second for each 10^8 products.
  const KeptAndDropped parts(GetParam().tokens, static_cast<std::size_t>(std::min<std::int64_t>(
                                                    400, 20'000'000 / GetParam().tokens / GetParam().columns)));
  const View keys = in.keys.view().head_range(0, 1);
  const View values = in.values.view().head_range(0, 1);
  const Nearest expected = cpu::nearest_kept(keys, parts.kept, parts.dropped);
  const MergeWeights merge = d2o_weights(expected, 0.1F);
  const MergeInput input{values, parts.kept, parts.dropped, expected.kept, merge.weights, merge.shares};
  const Tensor merged = reference::merge_rows(input);
  under_schedules([&] {
    const Nearest found = cuda::nearest_kept(keys, parts.kept, parts.dropped);
    ASSERT_EQ(found.kept, expected.kept);
    ASSERT_EQ(found.similarity, expected.similarity);
    const Tensor found_merged = cuda::merge_rows(input);
    ASSERT_TRUE(std::ranges::equal(found_merged.values(), merged.values()));
  });
}

TEST(DeviceMergeEdges, TiesGoToTheLowerPosition) {
  KernelInputs in({"", 1, 1, 90, 1, 16}, 1);
  for (const std::int64_t twin : {5, 70}) std::ranges::copy(in.keys.row(0, 40), in.keys.row(0, twin).begin());
  std::vector<std::uint32_t> kept;
  for (std::uint32_t j = 0; j < 90; ++j)
    if (j != 40) kept.push_back(j);
  const std::vector<std::uint32_t> dropped{40};
  EXPECT_EQ(cuda::nearest_kept(in.keys.view(), kept, dropped).kept[0], 5U);
}

TEST(DeviceMergeEdges, NanIsNotSwallowed) {
  KernelInputs in({"", 1, 1, 90, 1, 16}, 1);
  const KeptAndDropped parts(90);
  in.keys.row(0, parts.kept[7])[3] = std::numeric_limits<float>::quiet_NaN();
  in.keys.row(0, parts.kept[20])[0] = std::numeric_limits<float>::quiet_NaN();
  const Nearest found = cuda::nearest_kept(in.keys.view(), parts.kept, parts.dropped);
  for (std::size_t e = 0; e < parts.dropped.size(); ++e) {
    EXPECT_EQ(found.kept[e], 7U);
    EXPECT_TRUE(std::isnan(found.similarity[e]));
  }
}

TEST(DeviceMergeEdges, NothingKeptAndNothingDropped) {
  const KernelInputs in({"", 1, 1, 9, 1, 16}, 1);
  const KeptAndDropped parts(9);
  EXPECT_EQ(cuda::nearest_kept(in.keys.view(), {}, parts.dropped).similarity,
            std::vector<float>(parts.dropped.size(), -1.0F));
  EXPECT_TRUE(cuda::nearest_kept(in.keys.view(), parts.kept, {}).kept.empty());
  const Tensor merged = cuda::merge_rows({in.keys.view(), parts.kept, {}, {}, {}, {}});
  for (std::size_t t = 0; t < parts.kept.size(); ++t)
    EXPECT_TRUE(std::ranges::equal(merged.row(0, static_cast<std::int64_t>(t)), in.keys.row(0, parts.kept[t])));
}

}  // namespace
}  // namespace depthkv
