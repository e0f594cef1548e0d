// SPDX-License-Identifier: Apache-2.0
// Layer allocators against numbers worked out by hand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "depthkv/error.h"
#include "support/files.h"
#include "support/ranked_by_hand.h"
#include "support/scratch.h"

namespace depthkv {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;
using testing::HasSubstr;
using Entries = std::vector<std::int64_t>;
using Numbers = std::vector<double>;

// One head per layer, `tokens` positions, the last `protect` of them protected.
Entries layers(const PolicySpec& spec, const std::vector<Numbers>& measured, std::int64_t tokens, std::int64_t entries,
               std::int64_t protect = 0) {
  RankedByHand sample(blank_layers(measured.size(), static_cast<std::size_t>(tokens)), {0, protect});
  sample.input.measured = measured;
  return sample.split(spec, entries);
}

Numbers measured(const std::string& name, const LayerFeatures& layer, const std::map<std::string, Value>& params = {}) {
  return builtin_policies().make_layer_allocator({name, params, "test"}).measure(layer, ops_for(Device::cpu));
}

// N = 300 per head, beta = 2. kvpress counts the window of 10 in its line 450, 300, 150; the others draw it over 290
// (435, 290, 145) and add the window.
TEST(LayerAllocators, PyramidFormsDifferInWhereTheWindowCounts) {
  const std::vector<Numbers> none(3);
  const auto form = [&](const char* name) {
    return layers({"pyramid", {{"beta", 2.0}, {"form", std::string(name)}}, ""}, none, 1000, 900, 10);
  };
  EXPECT_THAT(form("kvpress"), ElementsAre(450, 300, 150));
  EXPECT_THAT(form("paper"), ElementsAre(445, 300, 155));
  EXPECT_THAT(form("factory"), ElementsAre(445, 300, 155));
}

TEST(LayerAllocators, PyramidFormsFallBackToEvenAsTheirCodesDo) {
  const std::vector<Numbers> none(2);
  const auto form = [&](const char* name, std::int64_t tokens, std::int64_t entries, std::int64_t protect) {
    return layers({"pyramid", {{"form", std::string(name)}}, ""}, none, tokens, entries, protect);
  };
  // kvpress with a window of 64 and beta 20 needs 1280 entries per head: 1279 / 20 < 64.
  EXPECT_THAT(form("kvpress", 8000, 2 * 1279, 64), ElementsAre(1279, 1279));
  EXPECT_THAT(form("kvpress", 8000, 2 * 1280, 64), ElementsAre(2496, 64));
  // The authors' code: 100 < 2 * 60.
  EXPECT_THAT(form("factory", 100, 120, 0), ElementsAre(60, 60));
  EXPECT_THAT(form("paper", 100, 120, 0), ElementsAre(100, 20));
  EXPECT_THAT(form("factory", 100, 100, 0), ElementsAre(98, 2));  // 97.5 and 2.5
}

// The codes' integers for N = 10, beta = 20, 7 layers: last 0, first 20, step 20 / 6 = 3; 20 + 17 + .. + 2 = 77.
TEST(LayerAllocators, PyramidSumIsExactWhereFlooredStepsDrift) {
  std::int64_t floored = 0;
  for (std::int64_t l = 0; l < 7; ++l) floored += 20 - l * (20 / 6);
  EXPECT_EQ(floored, 77);
  for (const char* form : {"paper", "factory", "kvpress"})
    EXPECT_EQ(total(layers({"pyramid", {{"form", std::string(form)}}, ""}, std::vector<Numbers>(7), 100, 70)), 70);
}

// Groups {0.99, 0.98}, {0.5, 0.52}, {0.1}. The most similar get 0.35 * 20, the others (100 - 14) / 3, alike.
TEST(LayerAllocators, SqueezeMakesThreeGroupsButTwoBudgetsAndTheMostSimilarGetLeast) {
  const PolicySpec spec{"squeeze", {}, ""};
  EXPECT_THAT(layers(spec, {{0.99}, {0.5}, {0.98}, {0.52}, {0.1}}, 100, 100), ElementsAre(7, 29, 7, 29, 28));
  EXPECT_THAT(layers(spec, {{0.9}, {0.2}}, 100, 40), ElementsAre(7, 33));
  EXPECT_THAT(layers(spec, {{0.5}, {0.5}, {0.5}}, 100, 60), ElementsAre(20, 20, 20));
  EXPECT_THAT(layers(spec, {{0.7}}, 100, 60), ElementsAre(60));
  // What the others have no room for goes back: 1.65 * 80 > 100.
  EXPECT_THAT(layers(spec, {{0.9}, {0.2}}, 100, 160), ElementsAre(60, 100));
}

// Against every way of putting six layers into three groups.
TEST(LayerAllocators, SqueezeFindsTheBestOfAllGroupings) {
  std::uint64_t state = 3;
  for (int round = 0; round < 50; ++round) {
    std::vector<Numbers> cosines;
    for (int l = 0; l < 6; ++l) {
      state = state * 6364136223846793005ULL + 1442695040888963407ULL;
      cosines.push_back({static_cast<double>(state >> 40) / 16777216.0});
    }
    double least = 1e9;
    std::vector<bool> similar(6);
    for (int labels = 0; labels < 729; ++labels) {
      std::vector<Numbers> groups(3);
      std::vector<std::size_t> group_of;
      for (int l = 0, rest = labels; l < 6; ++l, rest /= 3) {
        group_of.push_back(static_cast<std::size_t>(rest % 3));
        groups[group_of.back()].push_back(cosines[static_cast<std::size_t>(l)][0]);
      }
      double spread = 0;
      std::size_t top = 0;
      for (std::size_t g = 0; g < 3; ++g) {
        double mean = 0;
        for (const double x : groups[g]) mean += x / static_cast<double>(groups[g].size());
        for (const double x : groups[g]) spread += (x - mean) * (x - mean);
        if (!groups[g].empty() &&
            (groups[top].empty() || *std::ranges::max_element(groups[g]) > *std::ranges::max_element(groups[top])))
          top = g;
      }
      if (spread >= least - 1e-12) continue;
      least = spread;
      for (std::size_t l = 0; l < 6; ++l) similar[l] = group_of[l] == top;
    }
    const Entries entries = layers({"squeeze", {}, ""}, cosines, 1000, 600);
    for (std::size_t l = 0; l < 6; ++l) EXPECT_EQ(entries[l] == 35, similar[l]) << round;
  }
}

TEST(LayerAllocators, SqueezeAveragesCosinesBelowTheCut) {
  Tensor cosines(1, 1, 4);
  std::ranges::copy(std::vector<float>{0.5F, 1.0F, -1.0F, -1.0F}, cosines.values().begin());
  LayerFeatures layer;
  layer.tokens = 2;
  layer.cosines = cosines.view();
  EXPECT_THAT(measured("squeeze", layer), ElementsAre(0.75));
  EXPECT_THAT(measured("depthkv", layer, {{"metric", std::string("cosine")}}), ElementsAre(0.75));
}

// One head, rows {0.5, 0.5, ..} and {0.5, 0, ..} over the two columns before a window of 2: three times -0.5 ln 0.5,
// and variances 0 and (0.25^2 + 0.25^2) / 1.
TEST(LayerAllocators, CakeMeasuresEntropyAndUnbiasedVarianceBeforeTheWindow) {
  Tensor window(2, 3, 4);  // two alike heads; the first row is older than the window
  for (std::int64_t h = 0; h < 2; ++h) {
    std::ranges::copy(std::vector<float>{0.2F, 0.3F, 0.5F, 0.0F}, window.row(h, 0).begin());
    std::ranges::copy(std::vector<float>{0.5F, 0.5F, 0.0F, 0.0F}, window.row(h, 1).begin());
    std::ranges::copy(std::vector<float>{0.5F, 0.0F, 0.0F, 0.5F}, window.row(h, 2).begin());
  }
  LayerFeatures layer;
  layer.tokens = 4;
  layer.window = window.view();
  const std::map<std::string, Value> params{{"window", std::int64_t{2}}};
  EXPECT_THAT(measured("cake", layer, params),
              ElementsAre(DoubleNear(2 * 1.5 * std::log(2.0), 1e-8), DoubleNear(2 * 0.125, 1e-12)));
  layer.window = window.view().head_range(0, 1).first_columns(2).row_range(0, 2);
  layer.tokens = 2;  // nothing before the window
  EXPECT_THAT(measured("cake", layer, params), ElementsAre(0.0, 0.0));
}

// E V = 2, 4, 6: of 51 - 3 * 5 entries 6, 12, 18 beyond the window.
TEST(LayerAllocators, CakeSharesBeyondTheWindowAndTheNumberOfHeadsIsAConstant) {
  const PolicySpec spec{"cake", {}, ""};
  EXPECT_THAT(layers(spec, {{1, 2}, {1, 4}, {2, 3}}, 100, 51, 5), ElementsAre(11, 17, 23));
  EXPECT_THAT(layers(spec, {{2, 4}, {2, 8}, {4, 6}}, 100, 51, 5), ElementsAre(11, 17, 23));  // twice the heads
  EXPECT_THAT(layers({"cake", {{"tau1", 0.5}}, ""}, {{1, 1}, {2, 1}}, 100, 50), ElementsAre(10, 40));  // E^2
  EXPECT_THAT(layers(spec, {{0, 0}, {0, 0}}, 100, 50), ElementsAre(25, 25));
}

// The authors' code keeps all 10 positions while they fit into capacity 8 plus window 4.
TEST(LayerAllocators, CakePrunesPromptsThatTheAuthorsCodeLeavesWhole) {
  EXPECT_EQ(total(layers({"cake", {}, ""}, {{1, 1}, {1, 2}, {1, 3}}, 10, 24, 4)), 24);
}

// Variances 1, 16, 1 over three heads: min-max 0, 1, 0.
TEST(LayerAllocators, D2oNormalisesVariancesOverTheHeadsOfOneLayer) {
  Tensor sums(3, 1, 2);
  std::ranges::copy(std::vector<float>{1, 3, 0, 8, 4, 2}, sums.values().begin());
  LayerFeatures layer;
  layer.column_sums = sums.view();
  EXPECT_THAT(measured("d2o", layer), ElementsAre(DoubleNear(1.0 / 3, 1e-12)));
  layer.column_sums = sums.view().head_range(1, 1);
  EXPECT_THAT(measured("d2o", layer), ElementsAre(0.0));
}

TEST(LayerAllocators, D2oTakesTheSoftmaxOfTheNegativeAndClampingKeepsTheSum) {
  const PolicySpec all{"d2o", {{"exempt", Numbers{}}}, ""};
  EXPECT_THAT(layers(all, {{0}, {std::log(2.0)}}, 100, 60), ElementsAre(40, 20));
  // 9 : 1 of 120 is 108 and 12; only 100 fit.
  EXPECT_THAT(layers(all, {{0}, {std::log(9.0)}}, 100, 120), ElementsAre(100, 20));
}

TEST(LayerAllocators, D2oKeepsThreeLayersWholeAsFarAsTheOthersKeepTheirLeast) {
  const PolicySpec spec{"d2o", {}, ""};
  const std::vector<Numbers> alike(6, Numbers{0});
  EXPECT_THAT(layers(spec, alike, 100, 420), ElementsAre(100, 100, 40, 40, 40, 100));
  EXPECT_THAT(layers(spec, alike, 100, 180), ElementsAre(59, 59, 1, 1, 1, 59));  // 1 % of 100 each
  EXPECT_THAT(layers({"d2o", {{"lo", 0.2}}, ""}, alike, 100, 180), ElementsAre(40, 40, 20, 20, 20, 40));
  EXPECT_THAT(layers({"d2o", {{"lo", 1.0}}, ""}, alike, 100, 180), ElementsAre(59, 59, 1, 1, 1, 59));  // can't be
  EXPECT_THAT(layers(spec, {{0}, {0}}, 100, 60), ElementsAre(30, 30));                                 // all are exempt
  EXPECT_THROW(layers({"d2o", {{"exempt", Numbers{0.5}}}, ""}, alike, 100, 180), InputError);
}

// The best 4 entries beyond the protected one are layer 0's; rmax bounds how many of them count.
TEST(LayerAllocators, DynamickvCountsTheModelsBestOutsideTheWindow) {
  const RankedByHand sample({{{9, 8, 7, 6, 1, 99}}, {{5, 4, 3, 2, 1, 0}}}, {0, 1});
  EXPECT_THAT(sample.split({"dynamickv", {}, ""}, 6), ElementsAre(5, 1));
  EXPECT_THAT(sample.split({"dynamickv", {{"rmax", 1.5}}, ""}, 6), ElementsAre(4, 2));
  EXPECT_THAT(sample.split({"dynamickv", {{"rmax", 1.0}}, ""}, 6), ElementsAre(3, 3));
}

// Three quarters of the mass: 1 entry of {8, 1, 1}, 3 of {4, 3, 3}. Shares 0.2 + 0.8 * 2 * 1 / 4 = 0.6 and 1.4.
TEST(LayerAllocators, ZigzagCountsEntriesThatHoldTheMassWithoutForcedOnes) {
  const std::map<std::string, Value> tau{{"tau", 0.75}};
  const RankedByHand sample({{{8, 1, 1, 0, 0}}, {{4, 3, 3, 0, 0}}}, {0, 1});
  EXPECT_THAT(sample.split({"zigzag", tau, ""}, 4), ElementsAre(1, 3));  // 1.2 and 2.8
  const RankedByHand forced({{{8, 1, 1, kForced, 0}}, {{4, 3, 3, kForced, 0}}}, {0, 1});
  EXPECT_THAT(forced.split({"zigzag", tau, ""}, 4), ElementsAre(1, 3));
  const RankedByHand negative({{{8, 1, 1, -9, 0}}, {{4, 3, 3, -9, 0}}}, {0, 1});
  EXPECT_THAT(negative.split({"zigzag", tau, ""}, 4), ElementsAre(1, 3));
  EXPECT_THAT(RankedByHand(blank_layers(2, 5)).split({"zigzag", tau, ""}, 6), ElementsAre(3, 3));
}

// Of 12 entries all alike: entropy 1. Half of them: ln 6 / ln 12 = 0.721. 11 entries beyond the window: 6.39 and 4.61.
TEST(LayerAllocators, LavaSharesByNormalisedEntropyBeyondTheWindow) {
  std::vector<RankedByHand::Scores> scores = blank_layers(2, 7, 2);  // 12 unprotected entries over two heads
  for (std::size_t j = 0; j < 6; ++j) scores[0][0][j] = scores[0][1][j] = scores[1][0][j] = 3;
  const RankedByHand sample(scores, {0, 1});
  EXPECT_THAT(sample.split({"lava", {}, ""}, 4 + 11), ElementsAre(2 + 6, 2 + 5));
  EXPECT_THAT(RankedByHand(blank_layers(2, 5)).split({"lava", {}, ""}, 6), ElementsAre(3, 3));
}

// Sinks 1, recent 1: 0.5 + 0.3 and 0.2 + 0.2; the older row doesn't count.
TEST(LayerAllocators, SimlayerReadsTheLastPromptRow) {
  Tensor window(2, 2, 4);
  std::ranges::copy(std::vector<float>{1, 0, 0, 0, 0.5F, 0.1F, 0.1F, 0.3F, 1, 0, 0, 0, 0.2F, 0.3F, 0.3F, 0.2F},
                    window.values().begin());
  LayerFeatures layer;
  layer.tokens = 4;
  layer.window = window.view();
  EXPECT_THAT(measured("simlayer", layer, {{"sinks", std::int64_t{1}}, {"recent", std::int64_t{1}}}),
              ElementsAre(DoubleNear(0.6, 1e-6)));
  EXPECT_THAT(measured("simlayer", layer), ElementsAre(DoubleNear(1, 1e-6)));  // nothing is counted twice
}

TEST(LayerAllocators, SimlayerGivesLazyLayersNoMoreThanSinksAndRecents) {
  const PolicySpec spec{"simlayer", {{"sinks", std::int64_t{4}}, {"recent", std::int64_t{6}}}, ""};
  const std::vector<Numbers> shares{{0.95}, {0.5}, {0.9}};  // 0.9 is not above delta
  EXPECT_THAT(layers(spec, shares, 100, 90), ElementsAre(10, 40, 40));
  EXPECT_THAT(layers(spec, shares, 100, 15), ElementsAre(5, 5, 5));        // lazy ones never gain
  EXPECT_THAT(layers(spec, shares, 100, 270), ElementsAre(70, 100, 100));  // what the others have no room for
  EXPECT_THAT(layers(spec, {{1}, {1}, {1}}, 100, 90), ElementsAre(30, 30, 30));
}

// Composite scores 0.9, 0.45, 0.15 and 4, 3, 2; the first of each layer always stays.
TEST(LayerAllocators, KvcomposeForcesTheFirstLayerToTheLargestBudget) {
  const RankedByHand sample({{{1, 0.5F, 0.2F}, {0.8F, 0.4F, 0.1F}}, {{5, 4, 3}, {3, 2, 1}}});
  const PolicySpec plain{"kvcompose", {{"force_first", false}}, ""};
  EXPECT_THAT(sample.split(plain, 6), ElementsAre(2, 4));
  EXPECT_THAT(sample.split(plain, 8), ElementsAre(2, 6));
  EXPECT_THAT(sample.split(plain, 9), ElementsAre(3, 6));  // half a composite token
  const PolicySpec forced{"kvcompose", {}, ""};
  EXPECT_THAT(sample.split(forced, 6), ElementsAre(4, 2));
  EXPECT_THAT(sample.split(forced, 7), ElementsAre(4, 3));
  EXPECT_THAT(sample.split(forced, 8), ElementsAre(4, 4));
}

TEST(LayerAllocators, PooledKeepsTheModelsBestBeyondOnePerHead) {
  const RankedByHand sample({{{9, 8, 7, 1}}, {{6, 5, 2, 0}}});
  EXPECT_THAT(sample.split({"pooled", {}, ""}, 4), ElementsAre(3, 1));
  EXPECT_THAT(sample.split({"pooled", {}, ""}, 5), ElementsAre(3, 2));
  EXPECT_THAT(sample.split({"pooled", {}, ""}, 2), ElementsAre(1, 1));
  EXPECT_THAT(sample.split({"pooled", {}, ""}, 8), ElementsAre(4, 4));
}

class LayerFiles : public testing::Test {
 protected:
  std::string file(const std::string& text) { return write_text(scratch_ / "layers.txt", text).string(); }
  std::string message(const std::string& name, const std::string& text) {
    try {
      layers({name, {{"file", file(text)}}, ""}, std::vector<Numbers>(2), 10, 10);
    } catch (const InputError& error) {
      return error.what();
    }
    return "no error";
  }
  ScratchDirectory scratch_;
};

TEST_F(LayerFiles, ExplicitSharesAsGiven) {
  const std::vector<Numbers> none(3);
  EXPECT_THAT(layers({"explicit", {{"ratios", Numbers{0.1, 0.1, 0.2}}}, ""}, none, 100, 120), ElementsAre(30, 30, 60));
  EXPECT_THAT(layers({"explicit", {{"file", file("# l ratio\n1\n\n1 # same\n2\n")}}, ""}, none, 100, 120),
              ElementsAre(30, 30, 60));
  EXPECT_EQ(builtin_policies().make_layer_allocator({"explicit", {}, ""}).unavailable,
            "needs ratios; set ratios=LIST or file=FILE");
}

TEST_F(LayerFiles, MessagesNameFileLineFoundAndExpected) {
  const std::string name = (scratch_ / "layers.txt").string();
  EXPECT_EQ(message("explicit", "1\n-2\n"), name + ":2: found \"-2\", expected a number of at least 0");
  EXPECT_EQ(message("explicit", "1\ntwo\n"), name + ":2: found \"two\", expected a number of at least 0");
  EXPECT_EQ(message("depthkv", "1\n2x\n"), name + ":2: found \"2x\", expected a number");
  EXPECT_EQ(message("depthkv", "1\nnan\n"), name + ":2: found \"nan\", expected a number");
  EXPECT_EQ(message("depthkv", "1\n1e999\n"), name + ":2: found \"1e999\", expected a number");
  EXPECT_EQ(message("optimised", "1 2\n"), name + ":1: found 2 numbers, expected one");
  EXPECT_EQ(message("explicit", "# nothing\n"), name + ": found no numbers, expected a line of them per layer");
  EXPECT_THAT(message("explicit", "1\n2\n3\n"), HasSubstr(name + " has 3 numbers, the model has 2 layers"));
  EXPECT_EQ(message("depthkv", "-1\n2\n"), "no error");
  const std::vector<Numbers> two(2);
  EXPECT_THROW(layers({"explicit", {{"file", scratch_.path().string()}}, ""}, two, 10, 10), InputError);
  EXPECT_THROW(layers({"explicit", {{"file", file("1\n")}, {"ratios", Numbers{1}}}, ""}, two, 10, 10), InputError);
  EXPECT_THROW(layers({"explicit", {{"ratios", Numbers{-1}}}, ""}, two, 10, 10), InputError);
}

}  // namespace
}  // namespace depthkv
