// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention_maxima/attention_maxima.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "device/schedules.h"
#include "kernels/cases.h"

namespace depthkv {
namespace {

// Some are 0.
std::vector<float> weights_of(const KernelInputs& in, std::size_t kinds) {
  std::vector<float> weights;
  for (std::size_t i = 0; i < kinds * static_cast<std::size_t>(in.queries.rows()); ++i)
    weights.push_back(static_cast<float>((i * 7 + 3) % 5) * 0.4F);
  return weights;
}

std::vector<float> maxima_of(const Ops& ops, const KernelInputs& in, std::size_t kinds, SoftmaxSpec spec) {
  std::vector<float> maxima(kinds * static_cast<std::size_t>(in.queries.heads() * in.keys.rows()), 1e-3F);
  ops.attention_maxima(in.queries.view(), in.halves(), in.keys.rows() - in.queries.rows(), spec, weights_of(in, kinds),
                       maxima);
  return maxima;
}

std::vector<float> on_device(const KernelInputs& in, std::size_t kinds, SoftmaxSpec spec) {
  Ops ops;
  ops.attention_maxima = cuda::attention_maxima;
  return maxima_of(ops, in, kinds, spec);
}

class DeviceAttentionMaxima : public testing::TestWithParam<KernelCase> {};
INSTANTIATE_TEST_SUITE_P(Cases, DeviceAttentionMaxima, testing::ValuesIn(kDeviceCases),
                         [](const auto& test) { return test.param.name; });

TEST_P(DeviceAttentionMaxima, AreTheReferencesUnderEverySchedule) {
  const KernelInputs in(GetParam(), 7);
  std::vector<float> before;
  for (const SoftmaxSpec spec : specs_for<SoftmaxSpec>(GetParam(), {{}, {2.0, 5.0}, {.window = 7}})) {
    const std::size_t kinds = before.empty() ? 3 : 1;
    const std::vector<float> expected = maxima_of(ops_for(Device::reference), in, kinds, spec);
    std::vector<float> found;
    under_schedules([&] {
      std::vector<float> maxima = on_device(in, kinds, spec);
      if (found.empty()) found = maxima;
      ASSERT_EQ(found, maxima);
    });
    for (std::size_t i = 0; i < expected.size(); ++i)
      ASSERT_NEAR(found[i], expected[i], 1e-4 * expected[i]) << i;  // of one row, where a sum evens out
    if (GetParam().tokens > 7 && GetParam().rows > 0) {
      EXPECT_NE(found, before);  // the softmax's parameters matter
    }
    before = found;
  }
}

TEST(DeviceAttentionMaximaEdges, NanReachesTheKeysItsRowSeesAndStays) {
  KernelInputs in({"", 1, 1, 40, 3, 64}, 5);
  in.queries.row(0, 1)[9] = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> maxima(2 * 40, 0.5F);
  maxima[39] = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> weights(2 * 3, 1.0F);
  cuda::attention_maxima(in.queries.view(), in.halves(), 37, {}, weights, maxima);
  for (std::size_t j = 0; j < maxima.size(); ++j) EXPECT_EQ(std::isnan(maxima[j]), j % 40 <= 38 || j == 39) << j;
}

TEST(DeviceAttentionMaximaEdges, WhatNoRowSeesStays) {
  const KernelInputs in({"", 2, 2, 70, 20, 48}, 3);
  std::vector<float> maxima(4 * 70, -2.0F);
  const std::vector<float> weights(20, 1.0F);
  cuda::attention_maxima(in.queries.view(), in.halves(), 10, {}, weights, maxima);  // sees 30
  for (std::size_t j = 0; j < maxima.size(); ++j) EXPECT_EQ(maxima[j] == -2.0F, j % 70 >= 30) << j;
}

}  // namespace
}  // namespace depthkv
