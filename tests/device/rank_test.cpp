// SPDX-License-Identifier: Apache-2.0
#include "kernels/rank/rank.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>

#include "depthkv/error.h"
#include "kernels/cases.h"

namespace depthkv {
namespace {

void expect_same_order(const Tensor& scores, Protect protect) {
  const Ranking expected = reference::rank(scores.view(), protect);
  const Ranking found = cuda::rank(scores.view(), protect);
  ASSERT_EQ(found.heads(), expected.heads());
  for (std::int64_t h = 0; h < expected.heads(); ++h)
    ASSERT_TRUE(std::ranges::equal(found.head(h), expected.head(h))) << h;
}

class DeviceRank : public testing::TestWithParam<KernelCase> {};
INSTANTIATE_TEST_SUITE_P(Cases, DeviceRank, testing::ValuesIn(kDeviceCases),
                         [](const auto& test) { return test.param.name; });

TEST_P(DeviceRank, IsTheReferencesOrder) {
  std::mt19937_64 random(5);
  std::normal_distribution<float> normal;
  Tensor scores(GetParam().kv_heads * GetParam().group, 1, GetParam().tokens);
  for (float& x : scores.values()) x = normal(random);
  for (const Protect protect : {Protect{}, Protect{4, 32}, Protect{1, 0}, Protect{100000, 100000}})
    expect_same_order(scores, protect);
  for (float& x : scores.values()) x = std::round(x);  // ties are the rule
  expect_same_order(scores, {2, 3});
}

TEST(DeviceRankEdges, TiesInfinitiesSignedZerosAndTheSmallest) {
  const float inf = std::numeric_limits<float>::infinity();
  const float tiny = std::numeric_limits<float>::denorm_min();
  const float most = std::numeric_limits<float>::max();
  Tensor scores(2, 1, 12);
  const std::vector<float> values{0.0F, 2.0F, -inf, -0.0F, 2.0F, inf, -1.0F, tiny, -tiny, most, -most, inf};
  std::copy(values.begin(), values.end(), scores.row(0, 0).begin());
  std::copy(values.rbegin(), values.rend(), scores.row(1, 0).begin());
  for (const Protect protect : {Protect{}, Protect{2, 2}, Protect{11, 0}, Protect{0, 12}})
    expect_same_order(scores, protect);
}

TEST(DeviceRankEdges, NanIsRefusedByHeadAndPosition) {
  Tensor scores(3, 1, 50);
  scores.row(2, 0)[7] = scores.row(1, 0)[49] = std::numeric_limits<float>::quiet_NaN();
  try {
    cuda::rank(scores.view(), {50, 0});
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("KV head 1, position 49"), std::string::npos) << error.what();
  }
}

TEST(DeviceRankEdges, NoEntriesAndStridedViews) {
  EXPECT_EQ(cuda::rank(Tensor(2, 1, 0).view(), {}).tokens(), 0);
  const KernelInputs in({"", 4, 1, 90, 1, 8}, 2);
  const View part = in.attention.view().head_range(1, 2).column_range(7, 60);
  const Ranking expected = reference::rank(part, {3, 4});
  const Ranking found = cuda::rank(part, {3, 4});
  for (std::int64_t h = 0; h < 2; ++h) EXPECT_TRUE(std::ranges::equal(found.head(h), expected.head(h)));
}

}  // namespace
}  // namespace depthkv
