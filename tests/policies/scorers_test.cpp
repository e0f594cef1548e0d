// SPDX-License-Identifier: Apache-2.0
// Scorers against numbers worked out by hand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "depthkv/error.h"
#include "depthkv/registry.h"
#include "support/hand_layer.h"

namespace depthkv {
namespace {

using testing::ElementsAre;
using testing::FloatEq;

TEST(Scorers, H2oReducesColumnSumsOverTheGroup) {
  HandLayer layer(2, 1, 3);
  layer.column_sums({{1.0F, 4.0F, 0.5F}, {3.0F, 0.0F, 0.5F}});
  EXPECT_THAT(layer.score("h2o"), ElementsAre(2.0F, 2.0F, 0.5F));
  EXPECT_THAT(layer.score("h2o", {{"group", std::string("max")}}), ElementsAre(3.0F, 4.0F, 0.5F));
  EXPECT_THAT(layer.score("h2o", {{"group", std::string("sum")}}), ElementsAre(4.0F, 4.0F, 1.0F));
}

TEST(Scorers, ObservedDividesByTheRowsThatSeeTheEntry) {
  HandLayer layer(1, 1, 4);
  layer.column_sums({{2.0F, 1.5F, 0.4F, 0.1F}});
  EXPECT_THAT(layer.score("observed"), ElementsAre(FloatEq(0.5F), FloatEq(0.5F), FloatEq(0.2F), FloatEq(0.1F)));
}

TEST(Scorers, KnormPrefersSmallKeys) {
  HandLayer layer(2, 2, 2);
  layer.keys({{3.0F, 4.0F}, {0.0F, 1.0F}, {6.0F, 8.0F}, {0.0F, 0.0F}});
  EXPECT_THAT(layer.score_all("knorm"), ElementsAre(ElementsAre(-5.0F, -1.0F), ElementsAre(-10.0F, 0.0F)));
}

TEST(Scorers, VatpWeighsAttentionByTheValuesSize) {
  HandLayer layer(1, 1, 3);
  layer.column_sums({{1.0F, 2.0F, 0.5F}}).values({{1.0F, -1.0F}, {0.25F, 0.0F}, {-3.0F, 1.0F}});
  EXPECT_THAT(layer.score("vatp", {{"sinks", std::int64_t{0}}}), ElementsAre(2.0F, 0.5F, 2.0F));
  EXPECT_THAT(layer.score("vatp", {{"sinks", std::int64_t{1}}}), ElementsAre(kForced, 0.5F, 2.0F));
  EXPECT_THAT(layer.score("vatp"), ElementsAre(kForced, kForced, kForced));  // 20 sinks, 3 tokens
}

TEST(Scorers, SinkRecentKeepsSinksThenTheLast) {
  HandLayer layer(1, 1, 5);
  const std::vector<float> scores = layer.score("sink_recent", {{"sinks", std::int64_t{2}}});
  EXPECT_THAT(scores, ElementsAre(kForced, kForced, 2.0F, 3.0F, 4.0F));
}

TEST(Scorers, OracleIsWhatJudgedRowsPay) {
  HandLayer layer(2, 1, 2);
  layer.judged({{1.0F, 2.0F}, {3.0F, 0.0F}});
  EXPECT_THAT(layer.score("oracle"), ElementsAre(2.0F, 1.0F));
}

// Window of one row over six positions, kernel 3: sums of neighbours over 3, zero beyond the edge; the window stays.
TEST(Scorers, SnapkvPoolsTheWindowsAttention) {
  HandLayer layer(1, 1, 6);
  layer.window({{0.3F, 0.0F, 0.0F, 0.6F, 0.0F, 0.1F}}, 1);
  const std::map<std::string, Value> params{{"window", std::int64_t{1}}, {"kernel", std::int64_t{3}}};
  EXPECT_THAT(layer.score("snapkv", params),
              ElementsAre(FloatEq(0.1F), FloatEq(0.1F), FloatEq(0.2F), FloatEq(0.2F), FloatEq(0.2F), kForced));
  std::map<std::string, Value> max = params;
  max["pool"] = std::string("max");
  EXPECT_THAT(layer.score("snapkv", max), ElementsAre(0.3F, 0.3F, 0.6F, 0.6F, 0.6F, kForced));
}

// With max pooling and two query heads, pooling first takes each head's own peak.
TEST(Scorers, SnapkvOrderOfPoolingAndGroupMatters) {
  HandLayer layer(2, 1, 4);
  layer.window({{0.8F, 0.0F, 0.0F, 0.2F}, {0.0F, 0.6F, 0.0F, 0.4F}}, 1);
  std::map<std::string, Value> params{
      {"window", std::int64_t{1}}, {"kernel", std::int64_t{3}}, {"pool", std::string("max")}};
  EXPECT_THAT(layer.score("snapkv", params), ElementsAre(0.4F, 0.4F, 0.3F, kForced));
  params["order"] = std::string("pool_then_group");
  EXPECT_THAT(layer.score("snapkv", params), ElementsAre(FloatEq(0.7F), FloatEq(0.7F), FloatEq(0.3F), kForced));
}

TEST(Scorers, SnapkvOnFewerTokensThanItsWindowKeepsAll) {
  HandLayer layer(1, 1, 2);
  layer.window({{1.0F, 0.0F}, {0.5F, 0.5F}}, 2);
  EXPECT_THAT(layer.score("snapkv"), ElementsAre(kForced, kForced));
}

TEST(Scorers, RandomDiffersByLayerHeadSampleAndSeedOnly) {
  HandLayer layer(4, 2, 50);
  const auto first = layer.score_all("random");
  EXPECT_EQ(first, layer.score_all("random"));
  EXPECT_NE(first[0], first[1]);
  EXPECT_NE(first, layer.score_all("random", {{"seed", std::int64_t{1}}}));
  layer.features_.layer = 1;
  EXPECT_NE(first, layer.score_all("random"));
  layer.features_.layer = 0;
  layer.features_.sample_seed = 5;
  EXPECT_NE(first, layer.score_all("random"));
  for (const float score : first[0]) {
    EXPECT_GE(score, 0.0F);
    EXPECT_LT(score, 1.0F);
  }
}

TEST(Scorers, WrongParametersAreRefused) {
  const Registry registry = builtin_policies();
  const auto error = [&](const std::string& name, const std::string& key, const Value& value) -> std::string {
    try {
      registry.make_scorer({name, {{key, value}}, "plan.yaml:3"});
    } catch (const InputError& e) {
      return e.what();
    }
    return "accepted";
  };
  using testing::HasSubstr;
  EXPECT_THAT(error("snapkv", "kernel", std::int64_t{4}), HasSubstr("odd"));
  EXPECT_THAT(error("snapkv", "window", std::int64_t{0}), HasSubstr("1 to 128"));
  EXPECT_THAT(error("snapkv", "window", 2.5), HasSubstr("a whole number"));
  EXPECT_THAT(error("snapkv", "pool", std::string("mean")), HasSubstr("avg, max"));
  EXPECT_THAT(error("h2o", "group", std::string("median")), HasSubstr("mean, max, sum"));
  EXPECT_THAT(error("knorm", "window", std::int64_t{3}), AllOf(HasSubstr("plan.yaml:3"), HasSubstr("it has none")));
}

}  // namespace
}  // namespace depthkv
