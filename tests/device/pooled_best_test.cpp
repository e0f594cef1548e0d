// SPDX-License-Identifier: Apache-2.0
#include "kernels/pooled_best/pooled_best.h"

#include <gtest/gtest.h>

#include "device/schedules.h"
#include "kernels/cases.h"

namespace depthkv {
namespace {

class DevicePooledBest : public testing::TestWithParam<KernelCase> {};
INSTANTIATE_TEST_SUITE_P(Cases, DevicePooledBest, testing::ValuesIn(kDeviceCases),
                         [](const auto& test) { return test.param.name; });

TEST_P(DevicePooledBest, AreTheReferencesUnderEverySchedule) {
  for (const int levels : {0, 3}) {  // 0: next to no ties
    const Pool pool(GetParam().kv_heads * GetParam().group * 5, GetParam().tokens, levels, 4);
    for (PooledLists lists : pool.lists_in_many_ways()) {
      const std::int64_t all = static_cast<std::int64_t>(lists.scores.size());
      for (const std::int64_t entries : {std::int64_t{0}, std::int64_t{1}, all / 3, all, 4 * all}) {
        const std::vector<std::int64_t> expected = reference::pooled_best(lists, entries);
        under_schedules([&] { ASSERT_EQ(cuda::pooled_best(lists, entries), expected) << levels << ' ' << entries; });
      }
    }
  }
}

TEST(DevicePooledBest, MoreListsThanThreads) {
  const Pool pool(700, 3, 2, 9);
  for (const std::int64_t entries : {1, 699, 700, 1000, 2100})
    EXPECT_EQ(cuda::pooled_best(pool.lists(), entries), reference::pooled_best(pool.lists(), entries)) << entries;
}

TEST(DevicePooledBest, NoListsAndEmptyOnes) {
  EXPECT_TRUE(cuda::pooled_best({}, 5).empty());
  const Pool pool(3, 0, 0, 1);
  EXPECT_EQ(cuda::pooled_best(pool.lists(), 5), std::vector<std::int64_t>(3));
}

}  // namespace
}  // namespace depthkv
