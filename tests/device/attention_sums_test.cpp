// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention_sums/attention_sums.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "depthkv/error.h"
#include "device/schedules.h"
#include "kernels/attention_sums/launchers.h"
#include "kernels/cases.h"

namespace depthkv {
namespace {

// What the device makes of inputs that are copied there, added to ones.
std::vector<double> device_sums(const View& queries, const HalfRows& keys, std::int64_t first, SoftmaxSpec spec) {
  const auto values = [](const auto* data, std::int64_t count) {
    return std::span(data, static_cast<std::size_t>(count));
  };
  const cuda::DeviceArray<float> there(values(queries.data, queries.heads * queries.rows * queries.columns));
  const cuda::DeviceArray<std::uint16_t> keys_there(values(keys.data, keys.rows * keys.row_stride));
  cuda::DeviceAttention in{queries, keys, first};
  in.queries.data = there.data();
  in.keys.data = keys_there.data();
  const cuda::DeviceArray<float> normalisers(static_cast<std::size_t>(queries.heads * queries.rows));
  const std::vector<double> ones(static_cast<std::size_t>(queries.heads * keys.rows), 1.0);
  const cuda::DeviceArray<double> sums{std::span(ones)};
  cuda::attention_sums(in, spec, normalisers.data(), sums.data(), nullptr);
  return sums.to_host();
}

class DeviceAttentionSums : public testing::TestWithParam<KernelCase> {};
INSTANTIATE_TEST_SUITE_P(Cases, DeviceAttentionSums, testing::ValuesIn(kDeviceCases),
                         [](const auto& test) { return test.param.name; });

TEST_P(DeviceAttentionSums, AreTheReferencesUnderEverySchedule) {
  const KernelInputs in(GetParam(), 7);
  const std::int64_t first = in.keys.rows() - in.queries.rows();
  std::vector<double> before;
  for (const SoftmaxSpec spec : specs_for<SoftmaxSpec>(GetParam(), {{}, {2.0, 5.0}, {.window = 7}})) {
    std::vector<double> expected(static_cast<std::size_t>(in.queries.heads() * in.keys.rows()), 1.0);
    ops_for(Device::reference).attention_sums(in.queries.view(), in.halves(), first, spec, expected);
    std::vector<double> found;
    under_schedules([&] {
      std::vector<double> sums = device_sums(in.queries.view(), in.halves(), first, spec);
      if (found.empty()) found = sums;
      ASSERT_EQ(found, sums);
    });
    for (std::size_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(found[i], expected[i], 2e-5 * expected[i]) << i;
    if (GetParam().tokens > 7 && GetParam().rows > 0) {
      EXPECT_NE(found, before);  // the softmax's parameters matter
    }
    before = found;
  }
}

TEST(DeviceAttentionSums, KeysOfALargerCacheAreReadWithTheirStride) {
  const KernelInputs in({"", 2, 2, 70, 20, 64}, 3);
  const HalfRows part = in.halves().first_rows(50);
  std::vector<double> expected(static_cast<std::size_t>(4 * 50), 1.0);
  ops_for(Device::reference).attention_sums(in.queries.view(), part, 30, {}, expected);
  const std::vector<double> found = device_sums(in.queries.view(), part, 30, {});
  for (std::size_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(found[i], expected[i], 2e-5 * expected[i]) << i;
}

// Queries as an engine has them, [row][head][d] with room behind, and keys in a larger cache: read where they are.
TEST(DeviceAttentionSums, ReadAnEnginesOwnBuffers) {
  const KernelInputs in({"", 2, 2, 70, 20, 64}, 3);
  constexpr std::size_t kRow = 4 * 64 + 16;
  std::vector<float> by_row(20 * kRow, std::numeric_limits<float>::quiet_NaN());
  for (std::int64_t h = 0; h < 4; ++h)
    for (std::int64_t r = 0; r < 20; ++r)
      std::ranges::copy(in.queries.row(h, r), by_row.begin() + r * static_cast<std::int64_t>(kRow) + h * 64);
  const cuda::DeviceArray<float> queries{std::span<const float>(by_row)};
  const cuda::DeviceArray<std::uint16_t> keys{std::span<const std::uint16_t>(in.half_keys)};
  const View there{queries.data(), 4, 20, 64, 64, kRow};
  HalfRows cache = in.halves();
  cache.data = keys.data();
  std::vector<double> expected(static_cast<std::size_t>(4 * 70), 1.0);
  std::vector<double> found = expected;
  cuda::attention_sums(in.queries.view(), in.halves(), 50, {}, expected);
  cuda::attention_sums(there, cache, 50, {}, found);
  EXPECT_EQ(found, expected);
  const View odd{queries.data() + 1, 4, 20, 64, 64, kRow};
  EXPECT_THROW(cuda::attention_sums(odd, cache, 50, {}, found), Error);
}

TEST(DeviceAttentionSums, NanReachesTheColumnsItsRowSeesAndNoOthers) {
  KernelInputs in({"", 1, 1, 40, 3, 64}, 5);
  in.queries.row(0, 1)[9] = std::numeric_limits<float>::quiet_NaN();
  const std::vector<double> sums = device_sums(in.queries.view(), in.halves(), 37, {});
  for (std::size_t j = 0; j < sums.size(); ++j) EXPECT_EQ(std::isnan(sums[j]), j <= 38) << j;
}

TEST(DeviceAttentionSums, RefusesWhatItCannotRead) {
  const KernelInputs odd({"", 1, 1, 9, 2, 24}, 1);
  EXPECT_THROW(device_sums(odd.queries.view(), odd.halves(), 7, {}), Error);
  const KernelInputs in({"", 1, 1, 9, 2, 32}, 1);
  View shifted = in.queries.view();
  shifted.row_stride = 31;
  EXPECT_THROW(device_sums(shifted, in.halves(), 7, {}), Error);
}

}  // namespace
}  // namespace depthkv
