// SPDX-License-Identifier: Apache-2.0
// Metrics of views against numpy's (tests/unit/views/reference.py), and what they don't depend on.
#include "replay/view_metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>

#include "depthkv/error.h"
#include "support/files.h"
#include "support/source.h"

namespace depthkv {
namespace {

using Vectors = std::vector<std::vector<float>>;  // [document * views + view]

ViewGram gram_of(const Vectors& vectors, std::size_t views) {
  return {std::vector<std::span<const float>>(vectors.begin(), vectors.end()), views};
}

std::vector<std::size_t> all_of(const ViewGram& gram) {
  std::vector<std::size_t> all(gram.documents());
  std::iota(all.begin(), all.end(), std::size_t{0});
  return all;
}

struct Metrics {
  double infonce, dime, lidar;
};
Metrics measured(const ViewGram& gram, const std::vector<std::size_t>& documents) {
  return {gram.infonce(documents, 0.1), gram.dime(documents, 10, 1), gram.lidar(documents, 1e-4)};
}
Metrics measured(const Vectors& vectors, std::size_t views) {
  const ViewGram gram = gram_of(vectors, views);
  return measured(gram, all_of(gram));
}

Vectors random_vectors(std::size_t documents, std::size_t views, std::size_t width, unsigned seed, double noise = 0.4) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0, 1);
  Vectors vectors;
  for (std::size_t d = 0; d < documents; ++d) {
    std::vector<double> content(width);
    for (double& x : content) x = normal(random);
    for (std::size_t v = 0; v < views; ++v) {
      vectors.emplace_back();
      for (const double x : content) vectors.back().push_back(static_cast<float>(0.2 * (x + noise * normal(random))));
    }
  }
  return vectors;
}

// Turns pairs of coordinates, one after the other, by the same angles for every vector.
Vectors rotated(Vectors vectors) {
  for (std::vector<float>& x : vectors) {
    for (std::size_t i = 0; i + 1 < x.size(); ++i) {
      const double angle = 0.7 + static_cast<double>(i);
      const double a = static_cast<double>(x[i]);
      const double b = static_cast<double>(x[i + 1]);
      x[i] = static_cast<float>(a * std::cos(angle) - b * std::sin(angle));
      x[i + 1] = static_cast<float>(a * std::sin(angle) + b * std::cos(angle));
    }
  }
  return vectors;
}

TEST(ViewMetrics, AreNumpys) {
  const auto cases = nlohmann::json::parse(read_text(kSource / "tests/unit/views/cases.json"));
  ASSERT_EQ(cases.size(), 6U);
  for (const auto& one : cases) {
    const auto values = one["vectors"].get<std::vector<float>>();
    const auto views = one["views"].get<std::size_t>();
    const std::size_t width = values.size() / (one["documents"].get<std::size_t>() * views);
    Vectors vectors;
    for (std::size_t at = 0; at < values.size(); at += width)
      vectors.emplace_back(values.begin() + static_cast<std::ptrdiff_t>(at),
                           values.begin() + static_cast<std::ptrdiff_t>(at + width));
    const Metrics found = measured(vectors, views);
    EXPECT_NEAR(found.infonce, one["infonce"].get<double>(), 1e-9);
    EXPECT_NEAR(found.dime, one["dime"].get<double>(), 1e-9);
    EXPECT_NEAR(found.lidar, one["lidar"].get<double>(), 1e-7);
  }
}

TEST(ViewMetrics, DontChangeUnderRotations) {
  for (const std::size_t width : {5, 40}) {
    const Vectors vectors = random_vectors(6, 4, width, 3);
    const Metrics before = measured(vectors, 4);
    const Metrics after = measured(rotated(vectors), 4);
    EXPECT_NEAR(after.infonce, before.infonce, 1e-5);
    EXPECT_NEAR(after.dime, before.dime, 1e-5);
    EXPECT_NEAR(after.lidar, before.lidar, 1e-5);
  }
}

// Temperature and ridge set a scale for the other two.
TEST(ViewMetrics, DimeDoesntChangeWithScale) {
  Vectors vectors = random_vectors(6, 4, 12, 5);
  const Metrics before = measured(vectors, 4);
  for (auto& vector : vectors)
    for (float& x : vector) x *= 2;
  const Metrics after = measured(vectors, 4);
  EXPECT_NEAR(after.dime, before.dime, 1e-12);
  EXPECT_NE(after.infonce, before.infonce);
}

TEST(ViewMetrics, OfSomeDocumentsAreThoseOfASetWithThemAlone) {
  const Vectors vectors = random_vectors(5, 2, 9, 7);
  Vectors some;
  for (const std::size_t d : {4, 0, 3})
    for (std::size_t v = 0; v < 2; ++v) some.push_back(vectors[d * 2 + v]);
  const Metrics part = measured(gram_of(vectors, 2), {4, 0, 3});
  const Metrics alone = measured(some, 2);
  EXPECT_NEAR(part.infonce, alone.infonce, 1e-12);
  EXPECT_NEAR(part.dime, alone.dime, 1e-12);
  EXPECT_NEAR(part.lidar, alone.lidar, 1e-9);
}

TEST(ViewMetrics, SayThatNoiseChangesLessWhereItDoes) {
  const Metrics steady = measured(random_vectors(12, 4, 32, 9, 0.1), 4);
  const Metrics shaken = measured(random_vectors(12, 4, 32, 9, 2.0), 4);
  EXPECT_LT(steady.infonce, shaken.infonce);
  EXPECT_GT(steady.dime, shaken.dime);
}

TEST(ViewMetrics, OfTheSameVectorEverywhereAreFinite) {
  const Vectors vectors(8, std::vector<float>(4, 0.5F));
  const Metrics found = measured(vectors, 2);
  EXPECT_NEAR(found.infonce, std::log(7.0), 1e-9);  // one of seven, all alike
  EXPECT_NEAR(found.dime, 0, 1e-9);
  EXPECT_EQ(found.lidar, 0);
  const Metrics nothing = measured(Vectors(8, std::vector<float>(4, 0.0F)), 2);
  EXPECT_EQ(nothing.dime, 0);
  EXPECT_EQ(nothing.lidar, 0);
}

TEST(ViewMetrics, RefuseWhatIsNotPairs) {
  EXPECT_THROW(gram_of(random_vectors(2, 3, 4, 1), 3), Error);
  EXPECT_THROW(gram_of(random_vectors(1, 3, 4, 1), 2), Error);
  EXPECT_THROW(gram_of({{1, 2}, {1}}, 2), Error);
}

}  // namespace
}  // namespace depthkv
