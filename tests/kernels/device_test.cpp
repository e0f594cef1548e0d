// SPDX-License-Identifier: Apache-2.0
// Device code whose threads share nothing, played one thread after the other on the host.
#include <gtest/gtest.h>

#include <cmath>
#include <utility>

#include "kernels/cases.h"

namespace {

struct Index {
  unsigned x = 0, y = 0;
};
Index blockIdx, blockDim, threadIdx;  // NOLINT: CUDA's names

}  // namespace

#define __global__
#define __device__
#include "kernels/attention_sums/device.cuh"
#undef __global__
#undef __device__

namespace depthkv {
namespace {

template <class Kernel, class... Arguments>
void play(std::int64_t count, std::int64_t heads, Kernel kernel, Arguments... arguments) {
  blockDim = {32, 1};
  for (blockIdx.y = 0; blockIdx.y < heads; ++blockIdx.y)
    for (blockIdx.x = 0; blockIdx.x * blockDim.x < count; ++blockIdx.x)
      for (threadIdx.x = 0; threadIdx.x < blockDim.x; ++threadIdx.x) kernel(arguments...);
}

class DeviceTest : public testing::TestWithParam<KernelCase> {
 protected:
  KernelInputs in_{GetParam(), 7};
};
INSTANTIATE_TEST_SUITE_P(Cases, DeviceTest, testing::ValuesIn(kTestCases),
                         [](const auto& test) { return test.param.name; });

// Calls f with the number of dimensions as a constant: those of the cases.
template <int... kDimensions, class F>
void with_dimensions(std::int64_t dimensions, std::integer_sequence<int, kDimensions...>, F f) {
  const bool found = ((dimensions == kDimensions && (f(std::integral_constant<int, kDimensions>()), true)) || ...);
  ASSERT_TRUE(found) << dimensions;
}

TEST_P(DeviceTest, AttentionSums) {
  const View queries = in_.queries.view();
  const HalfRows keys = in_.halves();
  for (const SoftmaxSpec spec : {SoftmaxSpec{}, SoftmaxSpec{2.0, 5.0}, SoftmaxSpec{.window = 7}}) {
    const cuda::AttentionBlock block{queries.data,
                                     queries.row_stride,
                                     queries.head_stride,
                                     keys.data,
                                     keys.row_stride,
                                     keys.columns,
                                     static_cast<int>(queries.rows),
                                     static_cast<int>(queries.heads / keys.heads),
                                     keys.rows - queries.rows,
                                     spec.window,
                                     static_cast<float>(spec.scale),
                                     static_cast<float>(spec.softcap)};
    std::vector<float> normalisers(static_cast<std::size_t>(queries.heads * queries.rows));
    std::vector<double> sums(static_cast<std::size_t>(queries.heads * keys.rows), 1.0);
    std::vector<double> expected = sums;
    with_dimensions(queries.columns, std::integer_sequence<int, 1, 4, 5, 8, 9, 24, 80>(), [&](auto dimensions) {
      play(queries.rows, queries.heads, cuda::row_normalisers_kernel<dimensions()>, block, normalisers.data());
      play(keys.rows, queries.heads, cuda::key_sums_kernel<dimensions()>, block, normalisers.data(), sums.data(),
           keys.rows);
    });
    ops_for(Device::reference).attention_sums(queries, keys, block.first, spec, expected);
    for (std::size_t i = 0; i < sums.size(); ++i) ASSERT_NEAR(sums[i], expected[i], 2e-5 * expected[i]) << i;
  }
}

TEST(DeviceTest, HalvesAreConvertedExactly) {
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    const float expected = from_half(static_cast<std::uint16_t>(bits));
    const float found = cuda::float_of_half(static_cast<unsigned short>(bits));
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(found)) << bits;
    } else {
      ASSERT_EQ(found, expected) << bits;
    }
  }
}

}  // namespace
}  // namespace depthkv
