// SPDX-License-Identifier: Apache-2.0
#include "kernels/hide_entries/hide_entries.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "device/schedules.h"
#include "kernels/cases.h"
#include "kernels/device_memory.h"

namespace depthkv {
namespace {

class DeviceHideEntries : public testing::TestWithParam<KernelCase> {
 protected:
  // Before and after, by the reference; the first `before` floats are nobody's.
  DeviceHideEntries() : logits_(floats(), 0) {
    std::mt19937_64 random(5);
    KernelInputs::fill(logits_, random);
  }
  std::size_t floats() const {
    const KernelCase& c = GetParam();
    return static_cast<std::size_t>(c.kv_heads * c.group * c.rows * c.tokens) + kBefore;
  }
  Logits at(float* data) const {
    const KernelCase& c = GetParam();
    return {data, std::int64_t{c.kv_heads} * c.group, c.rows, c.tokens};
  }
  std::vector<float> expected(const HiddenColumns& hidden, std::size_t before) const {
    std::vector<float> after = logits_;
    reference::hide_entries(at(after.data() + before), hidden.view(), hidden.row_sets);
    return after;
  }

  static constexpr std::size_t kBefore = 3;
  std::vector<float> logits_;
};
INSTANTIATE_TEST_SUITE_P(Cases, DeviceHideEntries, testing::ValuesIn(kDeviceCases),
                         [](const auto& test) { return test.param.name; });

// Rows that begin anywhere; sets that end before, with and behind the row.
TEST_P(DeviceHideEntries, IsTheReferenceWhereLogitsLieOnTheDevice) {
  const KernelCase& c = GetParam();
  for (const std::size_t before : specs_for<std::size_t>(c, {kBefore, 0, 1})) {
    for (const std::int64_t columns : {c.tokens / 2, c.tokens, c.tokens + 40}) {
      const HiddenColumns hidden(c.kv_heads, 5, columns, c.rows, 3);
      const std::vector<float> after = expected(hidden, before);
      under_schedules([&] {
        const cuda::DeviceArray<float> there{std::span<const float>(logits_)};
        cuda::hide_entries(at(there.data() + before), hidden.view(), hidden.row_sets);
        ASSERT_EQ(there.to_host(), after) << before << ' ' << columns;
        const cuda::DeviceArray<float> again{std::span<const float>(logits_)};
        const cuda::DeviceArray<std::uint32_t> bits{std::span<const std::uint32_t>(hidden.bits)};
        ColumnSets resident = hidden.view();
        resident.bits = bits.data();
        cuda::hide_entries(at(again.data() + before), resident, hidden.row_sets);
        ASSERT_EQ(again.to_host(), after) << before << ' ' << columns;
      });
    }
  }
}

TEST_P(DeviceHideEntries, IsTheReferenceWhereLogitsLieOnTheHost) {
  const KernelCase& c = GetParam();
  const HiddenColumns hidden(c.kv_heads, 4, c.tokens, c.rows, 7);
  const std::vector<float> after = expected(hidden, 0);
  under_schedules([&] {
    std::vector<float> found = logits_;
    cuda::hide_entries(at(found.data()), hidden.view(), hidden.row_sets);
    ASSERT_EQ(found, after);
  });
}

TEST(DeviceHideEntriesEdges, NothingToHideIsNoError) {
  const std::vector<std::uint32_t> row_sets{0};
  std::vector<float> logits(8, 1.0F);
  cuda::hide_entries({logits.data(), 1, 1, 8}, {nullptr, 1, 1, 0}, row_sets);
  cuda::hide_entries({nullptr, 1, 0, 8}, {nullptr, 1, 1, 1}, {});
  EXPECT_EQ(logits, std::vector<float>(8, 1.0F));
}

}  // namespace
}  // namespace depthkv
