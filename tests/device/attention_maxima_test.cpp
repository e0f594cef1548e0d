// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention_maxima/attention_maxima.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "depthkv/error.h"
#include "device/schedules.h"
#include "kernels/cases.h"
#include "kernels/device_memory.h"

namespace depthkv {
namespace {

// The first weighting counts every row alike, the others don't; some rows count for nothing.
std::vector<float> some_weights(std::int64_t weightings, std::int64_t rows) {
  std::vector<float> weights;
  for (std::int64_t w = 0; w < weightings; ++w)
    for (std::int64_t r = 0; r < rows; ++r) weights.push_back(w == 0 ? 1.0F : static_cast<float>(r % (w + 2)) * 0.75F);
  return weights;
}

class DeviceAttentionMaxima : public testing::TestWithParam<KernelCase> {};
INSTANTIATE_TEST_SUITE_P(Cases, DeviceAttentionMaxima, testing::ValuesIn(kDeviceCases),
                         [](const auto& test) { return test.param.name; });

// Three weightings: a pair and one alone. What is there already stays where it is larger.
TEST_P(DeviceAttentionMaxima, AreTheCpusBitsUnderEverySchedule) {
  const KernelInputs in(GetParam(), 7);
  const std::int64_t first = in.keys.rows() - in.queries.rows();
  const std::vector<float> weights = some_weights(3, GetParam().rows);
  std::vector<SoftmaxSpec> specs{{}, {0.5, 5.0}, {.window = 7}};
  if (GetParam().tokens > 512) specs.resize(1);  // takes long enough
  for (const SoftmaxSpec spec : specs) {
    const std::vector<float> before(static_cast<std::size_t>(3 * in.queries.heads() * in.keys.rows()), 0.02F);
    std::vector<float> expected = before;
    std::vector<float> exact = before;
    cpu::attention_maxima(in.queries.view(), in.halves(), first, spec, weights, expected);
    reference::attention_maxima(in.queries.view(), in.halves(), first, spec, weights, exact);
    under_schedules([&] {
      std::vector<float> found = before;
      cuda::attention_maxima(in.queries.view(), in.halves(), first, spec, weights, found);
      ASSERT_EQ(found, expected);
      for (std::size_t i = 0; i < found.size(); ++i)
        ASSERT_NEAR(found[i], exact[i], 1e-6 + 2e-4 * static_cast<double>(exact[i])) << i;
    });
  }
}

TEST(DeviceAttentionMaxima, KeysOfALargerCacheAreReadWithTheirStride) {
  const KernelInputs in({"", 2, 2, 70, 20, 24}, 3);
  const HalfRows part = in.halves().first_rows(50);
  const std::vector<float> weights = some_weights(1, 20);
  std::vector<float> expected(static_cast<std::size_t>(4 * 50));
  std::vector<float> found = expected;
  cpu::attention_maxima(in.queries.view(), part, 30, {}, weights, expected);
  cuda::attention_maxima(in.queries.view(), part, 30, {}, weights, found);
  EXPECT_EQ(found, expected);
}

TEST(DeviceAttentionMaxima, NanReachesTheKeysItsRowSeesAndStays) {
  KernelInputs in({"", 1, 1, 40, 9, 16}, 3);
  in.queries.row(0, 4)[2] = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> weights = some_weights(2, 9);
  std::vector<float> maxima(80);
  maxima[0] = std::numeric_limits<float>::quiet_NaN();
  cuda::attention_maxima(in.queries.view(), in.halves(), 31, {.window = 20}, weights, maxima);
  for (std::size_t j = 0; j < 80; ++j) EXPECT_EQ(std::isnan(maxima[j]), j == 0 || (j % 40 >= 16 && j % 40 <= 35)) << j;
}

TEST(DeviceAttentionMaxima, RefusesWhatItCannotRead) {
  const KernelInputs odd({"", 1, 1, 9, 2, 24}, 1);
  EXPECT_THROW(
      cuda::attention_maxima({odd.queries.view(), odd.halves(), 7}, {}, {nullptr, 1}, nullptr, nullptr, nullptr),
      Error);
}

}  // namespace
}  // namespace depthkv
