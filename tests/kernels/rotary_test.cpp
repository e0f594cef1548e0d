// SPDX-License-Identifier: Apache-2.0
// Rotations against complex numbers.
#include "kernels/rotary.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <complex>
#include <random>

#include "support/synthetic_trace.h"

namespace depthkv {
namespace {

std::vector<float> random_vector(std::mt19937& random, std::size_t size) {
  std::normal_distribution<float> normal;
  std::vector<float> x(size);
  for (float& value : x) value = normal(random);
  return x;
}

// Pair c is a complex number that is multiplied by magnitude * exp(i * position * frequency).
std::vector<float> by_complex_numbers(std::vector<float> x, double position, const Rotary& rotary) {
  const std::size_t pairs = rotary.frequencies.size();
  for (std::size_t c = 0; c < pairs; ++c) {
    const std::size_t first = rotary.pairs == Rotary::Pairs::interleaved ? 2 * c : c;
    const std::size_t second = rotary.pairs == Rotary::Pairs::interleaved ? 2 * c + 1 : c + pairs;
    const std::complex<double> turned = std::complex<double>(double{x[first]}, double{x[second]}) *
                                        std::polar(rotary.magnitude, position * rotary.frequencies[c]);
    x[first] = static_cast<float>(turned.real());
    x[second] = static_cast<float>(turned.imag());
  }
  return x;
}

Rotary random_rotary(std::mt19937& random, std::size_t most_pairs) {
  std::uniform_real_distribution<double> frequency(0, 2);
  Rotary rotary;
  rotary.pairs = random() % 2 == 0 ? Rotary::Pairs::interleaved : Rotary::Pairs::half_split;
  rotary.magnitude = 0.5 + frequency(random);
  rotary.frequencies.resize(random() % (most_pairs + 1));
  for (double& x : rotary.frequencies) x = frequency(random);
  return rotary;
}

RC_GTEST_PROP(Rotary, TurnsPairsAndBack, ()) {
  std::mt19937 random(*rc::gen::arbitrary<std::uint32_t>());
  const std::size_t d = *rc::gen::inRange<std::size_t>(1, 20);
  const auto position = static_cast<double>(*rc::gen::inRange(0, 500));
  const Rotary rotary = random_rotary(random, d / 2);
  const std::vector<float> before = random_vector(random, d);
  std::vector<float> x = before;
  rotate(x, position, rotary);
  const std::vector<float> expected = by_complex_numbers(before, position, rotary);
  for (std::size_t i = 0; i < d; ++i) RC_ASSERT(std::abs(x[i] - expected[i]) <= 1e-5F);
  for (std::size_t i = 2 * rotary.frequencies.size(); i < d; ++i) RC_ASSERT(x[i] == before[i]);
  unrotate(x, position, rotary);
  for (std::size_t i = 0; i < d; ++i) RC_ASSERT(std::abs(x[i] - before[i]) <= 1e-5F);
}

RC_GTEST_PROP(Rotary, ProductsDependOnDistancesAlone, ()) {
  std::mt19937 random(*rc::gen::arbitrary<std::uint32_t>());
  const Rotary rotary = random_rotary(random, 4);
  const std::vector<float> q = random_vector(random, 8);
  const std::vector<float> k = random_vector(random, 8);
  const auto product = [&](double i, double j) {
    std::vector<float> a = q;
    std::vector<float> b = k;
    rotate(a, i, rotary);
    rotate(b, j, rotary);
    double sum = 0;
    for (std::size_t c = 0; c < a.size(); ++c) sum += double{a[c]} * double{b[c]};
    return sum;
  };
  RC_ASSERT(std::abs(product(7, 3) - product(104, 100)) <= 1e-3);
}

TEST(Rotary, PositionZeroOnlyGrows) {
  std::vector<float> x{1, 2, 3, 4, 5};
  rotate(x, 0, {Rotary::Pairs::half_split, {0.7, 0.1}, 2});
  EXPECT_EQ(x, (std::vector<float>{2, 4, 6, 8, 5}));
  rotate(x, 9, {});
  EXPECT_EQ(x, (std::vector<float>{2, 4, 6, 8, 5}));
}

TEST(Rotary, ComesFromTheCard) {
  ModelCard card = synthetic_card({.layers = 2, .head_dim = 8, .rotary_layout = "interleaved"});
  const Rotary by_base = rotary_of(card, 1);
  EXPECT_EQ(by_base.pairs, Rotary::Pairs::interleaved);
  EXPECT_EQ(by_base.magnitude, 1);
  ASSERT_EQ(by_base.frequencies.size(), 4U);
  for (std::size_t c = 0; c < 4; ++c)
    EXPECT_NEAR(by_base.frequencies[c], std::pow(10.0, -static_cast<double>(c)), 1e-12);
  card.rotary_layout = "half_split";
  card.rotations = {{{1, 0.5}, 1.25}, {}};
  EXPECT_EQ(rotary_of(card, 0).pairs, Rotary::Pairs::half_split);
  EXPECT_EQ(rotary_of(card, 0).frequencies, (std::vector<double>{1, 0.5}));
  EXPECT_EQ(rotary_of(card, 0).magnitude, 1.25);
  EXPECT_TRUE(rotary_of(card, 1).frequencies.empty());
  card.rotary_layout = "none";
  EXPECT_EQ(rotary_of(card, 0).pairs, Rotary::Pairs::none);
}

// Every head and row by its own position.
TEST(Rotary, RowsTurnBackFromTheirPositions) {
  std::mt19937 random(3);
  const Rotary rotary{Rotary::Pairs::half_split, {1, 0.3}, 1.5};
  Tensor rotated(2, 5, 6);
  std::vector<float> before;
  for (std::int64_t h = 0; h < 2; ++h)
    for (std::int64_t j = 0; j < 5; ++j) {
      const std::vector<float> x = random_vector(random, 6);
      before.insert(before.end(), x.begin(), x.end());
      std::ranges::copy(by_complex_numbers(x, static_cast<double>(j), rotary), rotated.row(h, j).begin());
    }
  const Tensor back = unrotated(rotated.view(), rotary);
  for (std::size_t i = 0; i < before.size(); ++i) EXPECT_NEAR(back.values()[i], before[i], 1e-6) << i;
}

}  // namespace
}  // namespace depthkv
