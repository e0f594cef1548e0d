// SPDX-License-Identifier: Apache-2.0
// Scorers against numbers worked out by hand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "depthkv/error.h"
#include "depthkv/registry.h"

namespace depthkv {
namespace {

using testing::ElementsAre;
using testing::FloatEq;

// A layer written down by hand: one list per head (and row).
class HandLayer {
 public:
  HandLayer(int query_heads, int kv_heads, std::int64_t tokens) {
    features_.layers = 2;
    features_.shape = {query_heads, kv_heads, 2};
    features_.tokens = tokens;
  }
  HandLayer& column_sums(const std::vector<std::vector<float>>& heads) {
    return set(features_.column_sums, sums_, heads, 1);
  }
  HandLayer& judged(const std::vector<std::vector<float>>& heads) {
    return set(features_.judged_sums, judged_, heads, 1);
  }
  HandLayer& keys(const std::vector<std::vector<float>>& rows) {
    return set(features_.keys, keys_, rows, features_.tokens);
  }
  HandLayer& values(const std::vector<std::vector<float>>& rows) {
    return set(features_.values, values_, rows, features_.tokens);
  }
  HandLayer& window(const std::vector<std::vector<float>>& rows, std::int64_t rows_per_head) {
    return set(features_.window, window_, rows, rows_per_head);
  }

  // Scores of KV head 0.
  std::vector<float> score(const std::string& name, const std::map<std::string, Value>& params = {}) const {
    return score_all(name, params)[0];
  }
  std::vector<std::vector<float>> score_all(const std::string& name,
                                            const std::map<std::string, Value>& params = {}) const {
    const Scorer scorer = builtin_policies().make_scorer({name, params, "test"});
    const Tensor scores = scorer.score(features_, ops_for(Device::cpu));
    std::vector<std::vector<float>> heads;
    for (std::int64_t g = 0; g < scores.heads(); ++g)
      heads.emplace_back(scores.row(g, 0).begin(), scores.row(g, 0).end());
    return heads;
  }

  LayerFeatures features_;

 private:
  // `lists`: rows of all heads, head by head.
  HandLayer& set(View& view, Tensor& tensor, const std::vector<std::vector<float>>& lists, std::int64_t rows) {
    const auto heads = static_cast<std::int64_t>(lists.size()) / rows;
    tensor = Tensor(heads, rows, static_cast<std::int64_t>(lists[0].size()));
    auto out = tensor.values().begin();
    for (const auto& list : lists) out = std::copy(list.begin(), list.end(), out);
    view = tensor.view();
    return *this;
  }

  Tensor sums_, judged_, keys_, values_, window_;
};

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
