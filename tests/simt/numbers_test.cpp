// SPDX-License-Identifier: Apache-2.0
// Half precision and bfloat16 as device code has them on the host: every value there is.
#include "kernels/numbers.cuh"

#include <gtest/gtest.h>

namespace depthkv {
namespace {

TEST(DeviceNumbers, EveryHalfAndBfloatComesBack) {
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    const auto narrow = static_cast<unsigned short>(bits);
    const float half = cuda::float_of_half(narrow);
    const float bfloat = cuda::float_of_bfloat(narrow);
    if (std::isnan(half)) {
      ASSERT_TRUE(std::isnan(cuda::float_of_half(cuda::half_of_float(half)))) << bits;
    } else {
      ASSERT_EQ(cuda::half_of_float(half), narrow);
    }
    if (std::isnan(bfloat)) {
      ASSERT_TRUE(std::isnan(cuda::float_of_bfloat(cuda::bfloat_of_float(bfloat)))) << bits;
    } else {
      ASSERT_EQ(cuda::bfloat_of_float(bfloat), narrow);
    }
  }
}

TEST(DeviceNumbers, AreWhatTheFormatsSay) {
  EXPECT_EQ(cuda::float_of_half(0x3c00), 1.0F);
  EXPECT_EQ(cuda::float_of_half(0x0001), 5.9604644775390625e-8F);  // 2^-24
  EXPECT_EQ(cuda::float_of_half(0x7bff), 65504.0F);
  EXPECT_EQ(cuda::float_of_bfloat(0x3f80), 1.0F);
  EXPECT_EQ(cuda::float_of_bfloat(0xc040), -3.0F);
}

TEST(DeviceNumbers, TiesGoToTheEvenNeighbour) {
  EXPECT_EQ(cuda::bfloat_of_float(1.0F + 0x1p-8F), 0x3f80);      // between 1 and 1 + 2^-7: down
  EXPECT_EQ(cuda::bfloat_of_float(1.0F + 3 * 0x1p-8F), 0x3f82);  // up
  EXPECT_EQ(cuda::bfloat_of_float(1.0F + 0x1.02p-8F), 0x3f81);   // just above the tie
  EXPECT_EQ(cuda::half_of_float(1.0F + 0x1p-11F), 0x3c00);
  EXPECT_EQ(cuda::half_of_float(1.0F + 3 * 0x1p-11F), 0x3c02);
  EXPECT_EQ(cuda::bfloat_of_float(3.4e38F), 0x7f80);  // rounds to infinity
}

}  // namespace
}  // namespace depthkv
