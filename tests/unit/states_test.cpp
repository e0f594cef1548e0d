// SPDX-License-Identifier: Apache-2.0
// Reductions of hidden states, against plain loops in double: Gram matrix entry by entry, eigenvalues by Jacobi
// rotations.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <random>

#include "depthkv/error.h"
#include "support/scratch.h"
#include "tracer/spectrum.h"
#include "tracer/state_metrics.h"
#include "tracer/state_spool.h"

namespace depthkv {
namespace {

using Matrix = std::vector<std::vector<double>>;  // [row][column]

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// Rotates away the off-diagonal entries of a symmetric matrix, one after the other, until nothing is left of them.
std::vector<double> jacobi_eigenvalues(Matrix a) {
  const std::size_t n = a.size();
  for (int sweep = 0; sweep < 60; ++sweep) {
    for (std::size_t p = 0; p < n; ++p) {
      for (std::size_t q = p + 1; q < n; ++q) {
        if (a[p][q] == 0) continue;
        const double angle = 0.5 * std::atan2(2 * a[p][q], a[q][q] - a[p][p]);
        const double c = std::cos(angle);
        const double s = std::sin(angle);
        for (std::size_t k = 0; k < n; ++k) {
          const double x = a[k][p];
          const double y = a[k][q];
          a[k][p] = c * x - s * y;
          a[k][q] = s * x + c * y;
        }
        for (std::size_t k = 0; k < n; ++k) {
          const double x = a[p][k];
          const double y = a[q][k];
          a[p][k] = c * x - s * y;
          a[q][k] = s * x + c * y;
        }
      }
    }
  }
  std::vector<double> values;
  for (std::size_t i = 0; i < n; ++i) values.push_back(a[i][i]);
  std::ranges::sort(values);
  return values;
}

Matrix gram_of(const Matrix& rows) {
  Matrix gram(rows.size(), std::vector<double>(rows.size()));
  for (std::size_t i = 0; i < rows.size(); ++i)
    for (std::size_t j = 0; j < rows.size(); ++j) gram[i][j] = dot(rows[i], rows[j]);
  return gram;
}

double angle(const std::vector<double>& a, const std::vector<double>& b) {
  return std::acos(std::clamp(dot(a, b) / std::sqrt(dot(a, a) * dot(b, b)), -1.0, 1.0));
}

struct Expected {
  std::vector<double> mean, unit_mean;
  double curvature = 0, curvature_code = 0, entropy = 0;
};

Expected reference(const Matrix& states) {
  const std::size_t n = states.size();
  const std::size_t width = states[0].size();
  Expected expected{std::vector<double>(width), std::vector<double>(width)};
  for (const auto& row : states)
    for (std::size_t j = 0; j < width; ++j) expected.mean[j] += row[j] / static_cast<double>(n);
  Matrix units = states;
  for (auto& row : units) {
    for (std::size_t j = 0; j < width; ++j) row[j] -= expected.mean[j];
    const double length = std::sqrt(dot(row, row));
    for (std::size_t j = 0; j < width; ++j) expected.unit_mean[j] += (row[j] /= length) / static_cast<double>(n);
  }
  Matrix steps;
  for (std::size_t i = 1; i < n; ++i) {
    steps.push_back(states[i]);
    for (std::size_t j = 0; j < width; ++j) steps.back()[j] -= states[i - 1][j];
    expected.curvature_code += angle(units[i - 1], units[i]) / static_cast<double>(n - 1);
  }
  for (std::size_t i = 1; i < steps.size(); ++i)
    expected.curvature += angle(steps[i - 1], steps[i]) / static_cast<double>(steps.size() - 1);
  for (const double x : jacobi_eigenvalues(gram_of(units)))
    if (const double p = x / static_cast<double>(n); p > 1e-14) expected.entropy -= p * std::log(p);
  return expected;
}

StateSummary summarise(const Matrix& states, bool scalars = true) {
  const std::size_t width = states.empty() ? 3 : states[0].size();
  const ReadStates read = [&](std::int64_t first, std::span<float> out) {
    for (std::size_t i = 0; i < out.size(); ++i)
      out[i] = static_cast<float>(states[static_cast<std::size_t>(first) + i / width][i % width]);
  };
  return summarise_states(read, static_cast<std::int64_t>(states.size()), static_cast<std::int64_t>(width), scalars);
}
double scalar(const StateSummary& summary, HiddenScalar which) {
  return double{summary.scalars[static_cast<std::size_t>(which)]};
}

Matrix random_states(std::size_t rows, std::size_t width, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.5F, 2);
  Matrix states(rows, std::vector<double>(width));
  for (auto& row : states)
    for (double& x : row) x = double{normal(random)};
  return states;
}

RC_GTEST_PROP(StateMetricsProperty, AreThoseOfPlainLoops, ()) {
  const auto rows = *rc::gen::inRange<std::size_t>(3, 24);
  const auto width = *rc::gen::inRange<std::size_t>(2, 24);
  const Matrix states = random_states(rows, width, *rc::gen::arbitrary<std::uint32_t>());
  const Expected expected = reference(states);
  const StateSummary found = summarise(states);
  for (std::size_t j = 0; j < width; ++j) {
    RC_ASSERT(std::abs(double{found.mean[j]} - expected.mean[j]) <= 1e-6);
    RC_ASSERT(std::abs(double{found.unit_mean[j]} - expected.unit_mean[j]) <= 1e-6);
  }
  RC_ASSERT(std::abs(scalar(found, HiddenScalar::curvature) - expected.curvature) <= 1e-5);
  RC_ASSERT(std::abs(scalar(found, HiddenScalar::curvature_code) - expected.curvature_code) <= 1e-5);
  RC_ASSERT(std::abs(scalar(found, HiddenScalar::prompt_entropy) - expected.entropy) <= 1e-5);
  RC_ASSERT(std::abs(scalar(found, HiddenScalar::effective_rank) - std::exp(expected.entropy)) <= 1e-4);
}

// More rows than a block, on both sides of rows = width.
TEST(StateMetrics, BlocksAddUp) {
  for (const std::size_t width : {20U, 700U}) {
    const Matrix states = random_states(600, width, 5);
    const StateSummary found = summarise(states);
    Matrix units = states;
    std::vector<double> mean(width);
    for (const auto& row : states)
      for (std::size_t j = 0; j < width; ++j) mean[j] += row[j] / 600;
    // The second Renyi entropy needs no eigenvalues and is never above the first: a bound on the spectrum.
    double squares = 0;
    for (auto& row : units) {
      for (std::size_t j = 0; j < width; ++j) row[j] -= mean[j];
      const double length = std::sqrt(dot(row, row));
      for (double& x : row) x /= length;
    }
    for (const auto& a : units)
      for (const auto& b : units) squares += dot(a, b) * dot(a, b) / (600.0 * 600.0);
    EXPECT_GE(scalar(found, HiddenScalar::prompt_entropy), -std::log(squares) - 1e-6);
    EXPECT_LE(scalar(found, HiddenScalar::prompt_entropy), std::log(std::min<double>(599, static_cast<double>(width))));
    for (std::size_t j = 0; j < width; ++j) ASSERT_NEAR(found.mean[j], mean[j], 1e-6);
  }
}

TEST(StateMetrics, RowsThatAreAllTheSameHaveNone) {
  const StateSummary found = summarise(Matrix(300, {0.1F, -7.3F, 1e-3F, 12345.678F}));
  for (const HiddenScalar which : kHiddenScalars) EXPECT_EQ(scalar(found, which), 0) << to_string(which);
  for (const float x : found.unit_mean) EXPECT_EQ(x, 0);
  EXPECT_FLOAT_EQ(found.mean[1], -7.3F);
}

// Centred, +-e_i are their own unit rows: orthonormal directions, each twice.
TEST(StateMetrics, OrthonormalRowsHaveTheEntropyOfAUniformSpectrum) {
  for (const std::size_t n : {2U, 5U, 16U}) {
    Matrix states;
    for (std::size_t i = 0; i < n; ++i) {
      states.push_back(std::vector<double>(n));
      states.back()[i] = 3;
      states.push_back(std::vector<double>(n));
      states.back()[i] = -3;
    }
    const StateSummary found = summarise(states);
    EXPECT_NEAR(scalar(found, HiddenScalar::prompt_entropy), std::log(static_cast<double>(n)), 1e-6);
    EXPECT_NEAR(scalar(found, HiddenScalar::effective_rank), static_cast<double>(n), 1e-5);
  }
}

TEST(StateMetrics, AStraightLineIsNotCurvedAndACircleIs) {
  Matrix line, circle;
  for (int i = 0; i < 360; ++i) {
    const double turn = 2 * std::numbers::pi * i / 360;
    line.push_back({2.0 * i, 1 - i / 4.0});
    circle.push_back({std::cos(turn), std::sin(turn)});
  }
  EXPECT_NEAR(scalar(summarise(line), HiddenScalar::curvature), 0, 1e-6);
  EXPECT_NEAR(scalar(summarise(circle), HiddenScalar::curvature), 2 * std::numbers::pi / 360, 1e-4);
  // Around its centre, each state is one step of the turn further than the one before.
  EXPECT_NEAR(scalar(summarise(circle), HiddenScalar::curvature_code), 2 * std::numbers::pi / 360, 1e-4);
  EXPECT_NEAR(scalar(summarise(line), HiddenScalar::prompt_entropy), 0, 1e-6);
  EXPECT_NEAR(scalar(summarise(line), HiddenScalar::effective_rank), 1, 1e-6);
}

TEST(StateMetrics, FewRowsGiveZerosWhereThereIsNothingToMeasure) {
  const auto none = summarise({});
  for (const HiddenScalar which : kHiddenScalars) EXPECT_EQ(scalar(none, which), 0);
  const auto one = summarise({{1, 2, 3}});
  for (const HiddenScalar which : kHiddenScalars) EXPECT_EQ(scalar(one, which), 0);
  EXPECT_EQ(one.mean, (std::vector<float>{1, 2, 3}));
  const auto two = summarise({{1, 2, 3}, {3, 2, 1}});
  EXPECT_EQ(scalar(two, HiddenScalar::curvature), 0);
  EXPECT_NEAR(scalar(two, HiddenScalar::curvature_code), std::numbers::pi, 1e-6);
  EXPECT_NEAR(scalar(two, HiddenScalar::prompt_entropy), 0, 1e-6);
  EXPECT_NEAR(scalar(two, HiddenScalar::effective_rank), 1, 1e-6);
  const auto plain = summarise({{1, 2, 3}, {3, 2, 1}, {0, 0, 7}}, false);
  EXPECT_EQ(plain.unit_mean, summarise({{1, 2, 3}, {3, 2, 1}, {0, 0, 7}}).unit_mean);
  for (const HiddenScalar which : kHiddenScalars) EXPECT_EQ(scalar(plain, which), 0) << "wasn't asked for";
}

TEST(GramSpectrum, IsThatOfJacobiRotationsWhicheverWayIsSmaller) {
  for (const auto& [rows, width] : {std::pair{7U, 19U}, std::pair{19U, 7U}, std::pair{11U, 11U}}) {
    const Matrix z = random_states(rows, width, 9);
    GramSpectrum gram(rows, width);
    for (const auto& row : z) gram.add(row);
    const std::vector<double> found = gram.eigenvalues();
    std::vector<double> expected = jacobi_eigenvalues(gram_of(z));
    expected.erase(expected.begin(), expected.end() - static_cast<std::ptrdiff_t>(found.size()));
    ASSERT_EQ(found.size(), std::min<std::size_t>(rows, width));
    for (std::size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-9 * expected.back());
  }
  GramSpectrum gram(2, 3);
  EXPECT_THROW(gram.eigenvalues(), Error);
  EXPECT_THROW(gram.add(std::vector<double>(9)), Error);
}

TEST(StateSpool, GivesBackWhatItTookAndLeavesNothing) {
  const ScratchDirectory scratch;
  StateSpool spool(scratch.path(), 10, 3);
  EXPECT_TRUE(std::filesystem::is_empty(scratch.path())) << "the file has no name";
  std::vector<float> rows(15);
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(i);
  spool.write(4, 5, rows);
  spool.write(4, 0, rows);
  spool.write(3, 5, std::vector<float>(15, -1));
  std::vector<float> read(12);
  spool.read(4, 3, read);
  EXPECT_EQ(read, (std::vector<float>{9, 10, 11, 12, 13, 14, 0, 1, 2, 3, 4, 5}));
  EXPECT_THROW(spool.read(4, 8, read), Error) << "never written";
  EXPECT_THROW(StateSpool(scratch / "nowhere", 1, 1), Error);
}

}  // namespace
}  // namespace depthkv
