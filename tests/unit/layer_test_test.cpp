// SPDX-License-Identifier: Apache-2.0
#include "replay/layer_test.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "depthkv/error.h"
#include "depthkv/layer_tests.h"

namespace depthkv {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;

// Drops of equal layers, but for `planted` in the first one; samples differ in level and spread, as prompts do.
LayerDrops drawn(std::mt19937& random, std::size_t samples, std::size_t layers, double planted) {
  std::lognormal_distribution<double> noise(0, 1);
  std::uniform_real_distribution<double> level(0, 5);
  LayerDrops drops;
  for (std::size_t s = 0; s < samples; ++s) {
    const double base = level(random);
    drops.emplace_back();
    for (std::size_t l = 0; l < layers; ++l) drops.back().push_back(base + noise(random) + (l == 0 ? planted : 0.0));
  }
  return drops;
}

TEST(LayerTest, KeepsItsLevelWhereLayersAreEqual) {
  std::mt19937 random(7);
  int rejected = 0;
  for (int i = 0; i < 1000; ++i) rejected += test_equal_layers(drawn(random, 8, 6, 0), 199, 1).p <= 0.05 ? 1 : 0;
  EXPECT_GE(rejected, 30);
  EXPECT_LE(rejected, 70);
}

TEST(LayerTest, RejectsWhereALayerIsPlanted) {
  std::mt19937 random(7);
  const LayerTest test = test_equal_layers(drawn(random, 20, 12, 4), 999, 1);
  EXPECT_LT(test.p, 0.01);
  EXPECT_GT(test.p, 0);
  EXPECT_GT(test.eta_squared, 0.1);
  EXPECT_EQ(test.samples, 20U);
  EXPECT_EQ(test.layers, 12U);
}

TEST(LayerTest, OfAFewNumbersIsDoneByHand) {
  // Means 2 and 4: variance 1. Each sample's own mean taken off, layers leave nothing: eta squared is 1.
  const LayerTest test = test_equal_layers({{1, 3}, {3, 5}}, 99, 1);
  EXPECT_DOUBLE_EQ(test.statistic, 1);
  EXPECT_DOUBLE_EQ(test.eta_squared, 1);
  EXPECT_DOUBLE_EQ(test.kendall_w, 1);
  // Two of the four permutations are as extreme.
  EXPECT_NEAR(test.p, 0.5, 0.15);
  EXPECT_DOUBLE_EQ(test_equal_layers({{1, 3}, {3, 1}}, 99, 1).p, 1);
}

TEST(LayerTest, OfEqualDropsFindsNothing) {
  const LayerTest test = test_equal_layers({{2, 2, 2}, {5, 5, 5}}, 99, 1);
  EXPECT_EQ(test.p, 1);
  EXPECT_EQ(test.eta_squared, 0);
  EXPECT_EQ(test.kendall_w, 0);
}

TEST(LayerTest, PIsNeverZeroAndGivenByTheSeed) {
  std::mt19937 random(3);
  const LayerDrops drops = drawn(random, 10, 8, 50);
  EXPECT_DOUBLE_EQ(test_equal_layers(drops, 99, 1).p, 0.01);
  EXPECT_EQ(test_equal_layers(drops, 999, 5).p, test_equal_layers(drops, 999, 5).p);
}

TEST(LayerTest, FewerSamplesAreNeededForALargerEffect) {
  std::mt19937 random(11);
  const std::size_t large = samples_needed(drawn(random, 12, 6, 8), 0.05, 64, 1);
  const std::size_t small = samples_needed(drawn(random, 12, 6, 1.5), 0.05, 64, 1);
  EXPECT_GE(large, 1U);
  EXPECT_LT(large, 8U);
  EXPECT_TRUE(small == 0 || small > large);
  EXPECT_EQ(samples_needed({{1, 1}, {2, 2}}, 0.05, 16, 1), 0U);
}

TEST(LayerTest, RefusesWhatCantBeCompared) {
  EXPECT_THROW(test_equal_layers({}, 99, 1), Error);
  EXPECT_THROW(test_equal_layers({{1}}, 99, 1), Error);
  EXPECT_THROW(test_equal_layers({{1, 2}, {1, 2, 3}}, 99, 1), Error);
  EXPECT_THROW(test_equal_layers({{1, std::nan("")}}, 99, 1), Error);
}

TEST(LayerSurvey, TestsEveryTaskAndAllSamplesLessTheirNoise) {
  std::mt19937 random(5);
  std::vector<AblationRow> rows;
  for (int s = 0; s < 16; ++s) {
    const std::string task = s % 2 == 0 ? "planted" : "equal";
    const LayerDrops drops = drawn(random, 1, 8, task == "planted" ? 6 : 0);
    for (int layer = 0; layer < 8; ++layer) {
      const double noise = layer == 3 ? 50 : 0;  // of the engine: says nothing about the layer
      const double drop = drops[0][static_cast<std::size_t>(layer)];
      for (const double keep : {0.2, 0.4, 1.0})
        rows.push_back({std::to_string(s), task, keep, layer, noise + (keep == 1 ? 0 : drop), 0, 0});
    }
  }
  const std::vector<TaskLayers> tests = survey_layers(rows);
  ASSERT_EQ(tests.size(), 3U);
  EXPECT_EQ(tests[0].task, "equal");
  EXPECT_EQ(tests[0].test.samples, 8U);
  EXPECT_GT(tests[0].test.p, 0.05);
  EXPECT_LT(tests[1].test.p, 0.01);
  EXPECT_DOUBLE_EQ(tests[1].p_holm, 2 * tests[1].test.p);
  EXPECT_EQ(tests[2].task, "all");
  EXPECT_EQ(tests[2].test.samples, 16U);
  EXPECT_EQ(tests[2].test.p, tests[2].p_holm);
  EXPECT_TRUE(survey_layers({}).empty());
}

TEST(Holm, IsTheTextbooks) {
  const double p[] = {0.01, 0.04, 0.03, 0.005};
  EXPECT_THAT(holm_adjusted(p), ElementsAre(DoubleNear(0.03, 1e-12), DoubleNear(0.06, 1e-12), DoubleNear(0.06, 1e-12),
                                            DoubleNear(0.02, 1e-12)));
  const double large[] = {0.9, 0.8};
  EXPECT_THAT(holm_adjusted(large), ElementsAre(1.0, 1.0));
  EXPECT_TRUE(holm_adjusted({}).empty());
}

}  // namespace
}  // namespace depthkv
