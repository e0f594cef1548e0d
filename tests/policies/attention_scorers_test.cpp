// SPDX-License-Identifier: Apache-2.0
// Scorers that read attention, against numbers worked out by hand or by a plain loop.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <set>

#include "support/hand_layer.h"
#include "support/random_layer.h"
#include "support/ranked_by_hand.h"
#include "support/spec.h"

namespace depthkv {
namespace {

using testing::ElementsAre;
using testing::FloatEq;

void expect_near(const std::vector<float>& scores, const std::vector<double>& expected) {
  ASSERT_EQ(scores.size(), expected.size());
  for (std::size_t j = 0; j < scores.size(); ++j)
    EXPECT_NEAR(scores[j], expected[j], 2e-5 * std::abs(expected[j]) + 1e-7) << j;
}

TEST(Tova, IsTheLastRowsMeanOverAllHeadsTheSameForEveryKvHead) {
  HandLayer layer(4, 2, 3);
  layer.window(
      {{9, 9, 0}, {0.5F, 0.5F, 0}, {9, 9, 0}, {0.25F, 0.25F, 0.5F}, {9, 9, 0}, {1, 0, 0}, {9, 9, 0}, {0, 0, 1}}, 2);
  const auto expected = ElementsAre(FloatEq(1.75F / 4), FloatEq(0.75F / 4), FloatEq(1.5F / 4));
  EXPECT_THAT(layer.score_all("tova"), ElementsAre(expected, expected));
  const auto forced = ElementsAre(FloatEq(1.75F / 4), FloatEq(0.75F / 4), kForced);
  EXPECT_THAT(layer.score_all("tova", {{"protect_last", true}}), ElementsAre(forced, forced));
}

// Lists 2 and 3 of four, uniform 1/3 and 1/4: below it are 1 and 2, then 0 and 2. Sums over the rows put 1 before 0.
TEST(Scissorhands, CountsRowsBelowUniformAndBreaksTiesByTheSum) {
  HandLayer layer(1, 1, 4);
  layer.window({{0.5F, 0.25F, 0.25F, 0}, {0.125F, 0.4F, 0.2F, 0.275F}}, 2);
  EXPECT_THAT(layer.score("scissorhands", {{"history", whole(2)}}),
              ElementsAre(-1 + 2 / 4.0F, -1 + 3 / 4.0F, -2 + 1 / 4.0F, 0.0F));
  EXPECT_THAT(layer.score("scissorhands", {{"form", text("sum")}, {"history", whole(2)}}),
              ElementsAre(FloatEq(0.625F), FloatEq(0.65F), FloatEq(0.45F), FloatEq(0.275F)));
  EXPECT_THAT(layer.score("scissorhands", {{"form", text("sum")}, {"history", whole(2)}, {"decay", 0.5}}),
              ElementsAre(FloatEq(0.375F), FloatEq(0.525F), FloatEq(0.325F), FloatEq(0.275F)));
  EXPECT_THAT(layer.score("scissorhands", {{"form", text("sum")}, {"history", whole(1)}}),
              ElementsAre(0.125F, 0.4F, 0.2F, 0.275F));
}

TEST(Scissorhands, TheSumNeverOverrulesACount) {
  HandLayer layer(3, 1, 40);
  const Lists rows = random_attention(3, 40, 9, 1);
  layer.window(rows, 9);
  for (const char* group : {"mean", "sum", "max"}) {
    const std::vector<float> scores = layer.score("scissorhands", {{"history", whole(9)}, {"group", text(group)}});
    std::vector<std::vector<int>> below(3, std::vector<int>(40));
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const std::size_t position = 31 + i % 9;
      for (std::size_t j = 0; j <= position; ++j)
        below[i / 9][j] += rows[i][j] < 1.0F / static_cast<float>(position + 1) ? 1 : 0;
    }
    const auto count = [&](std::size_t j) {
      return std::string(group) == "max" ? std::min({below[0][j], below[1][j], below[2][j]})
                                         : below[0][j] + below[1][j] + below[2][j];
    };
    for (std::size_t a = 0; a < 40; ++a)
      for (std::size_t b = 0; b < 40; ++b) EXPECT_TRUE(count(a) >= count(b) || scores[a] > scores[b]) << group;
  }
}

// Means 0.3 0.2 0.1, unbiased variances 0.02 0.08 0.
TEST(Cake, AddsTheUnbiasedVarianceThenPools) {
  HandLayer layer(1, 1, 5);
  layer.window({{0.2F, 0.4F, 0.1F, 0.3F, 0}, {0.4F, 0, 0.1F, 0.2F, 0.3F}}, 2);
  std::map<std::string, Value> params{{"window", whole(2)}, {"gamma", 10.0}, {"kernel", whole(1)}};
  EXPECT_THAT(layer.score("cake", params), ElementsAre(FloatEq(0.5F), FloatEq(1.0F), FloatEq(0.1F), kForced, kForced));
  params["kernel"] = whole(3);
  EXPECT_THAT(layer.score("cake", params),
              ElementsAre(FloatEq(1.5F / 3), FloatEq(1.6F / 3), FloatEq(1.1F / 3), kForced, kForced));
  params["window"] = whole(1);  // no variance of one row
  EXPECT_THAT(layer.score("cake", params),
              ElementsAre(FloatEq(0.4F / 3), FloatEq(0.5F / 3), FloatEq(0.3F / 3), FloatEq(0.3F / 3), kForced));
}

// The reference sums over heads; a constant, so the order is the mean's.
TEST(Cake, SumOverHeadsIsAConstantTimesTheMean) {
  HandLayer layer(4, 1, 20);
  layer.window(random_attention(4, 20, 5, 3), 5);
  const std::vector<float> mean = layer.score("cake", {{"window", whole(5)}});
  const std::vector<float> sum = layer.score("cake", {{"window", whole(5)}, {"group", text("sum")}});
  for (std::size_t j = 0; j < 15; ++j) EXPECT_NEAR(sum[j], 4 * mean[j], 1e-4F);
}

// One factor per head, of the entries before the window; the order inside a head is the attention's.
TEST(Lava, ValueFactorIsOneNumberPerHead) {
  HandLayer layer(2, 2, 4);
  layer.window({{0.4F, 0.3F, 0.2F, 0.1F}, {0.1F, 0.2F, 0.3F, 0.4F}}, 1)
      .values({{1, -1}, {3, 1}, {0, 0}, {100, 100}, {0.5F, 0}, {0, 0.25F}, {0, 0}, {9, 9}});
  const std::map<std::string, Value> params{{"window", whole(1)}, {"kernel", whole(1)}};
  EXPECT_THAT(layer.score_all("lava", params),
              ElementsAre(ElementsAre(FloatEq(1.6F), FloatEq(1.2F), FloatEq(0.8F), kForced),
                          ElementsAre(FloatEq(0.05F), FloatEq(0.1F), FloatEq(0.15F), kForced)));
}

TEST(Lava, TakesTheMaximumOverNeighboursAndGroup) {
  HandLayer layer(2, 1, 5);
  layer.window({{0.4F, 0, 0, 0.2F, 0.4F}, {0, 0.1F, 0, 0.5F, 0.4F}}, 1)
      .values({{1, 0}, {0, 1}, {0, 0}, {0, 0}, {5, 5}});
  EXPECT_THAT(layer.score("lava", {{"window", whole(1)}, {"kernel", whole(3)}}),
              ElementsAre(0.4F, 0.4F, 0.5F, 0.5F, kForced));
}

TEST(Defensive, EqualsAPlainLoop) {
  constexpr std::size_t kBefore = 26;
  constexpr std::size_t kWindow = 4;
  HandLayer layer(4, 2, 30);
  const Lists rows = random_attention(4, 30, kWindow, 4);
  const Lists norms = random_norms(4, 30, 5);
  layer.window(rows, kWindow).output_norms(norms);
  const auto all = layer.score_all("defensive", {{"window", whole(kWindow)}, {"mass", 0.7}});
  std::vector<std::vector<double>> mean(2, std::vector<double>(kBefore));
  double bias = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (std::size_t j = 0; j < kBefore; ++j) mean[i / 8][j] += static_cast<double>(rows[i][j]) / 8;
    for (std::size_t j = kBefore - kWindow; j < kBefore; ++j) bias += static_cast<double>(rows[i][j]) / 16;
  }
  for (std::size_t g = 0; g < 2; ++g) {
    std::vector<double> worst(kBefore);
    for (std::size_t i = g * 8; i < g * 8 + 8; ++i) {
      std::vector<double> pooled(kBefore);
      for (std::size_t j = 0; j < kBefore; ++j)
        for (std::size_t u = j < 2 ? 0 : j - 2; u <= std::min(kBefore - 1, j + 2); ++u)
          pooled[j] += static_cast<double>(rows[i][u]) / 5;
      const double scale = std::accumulate(rows[i].begin(), rows[i].begin() + kBefore, 0.0) /
                           std::accumulate(pooled.begin(), pooled.end(), 0.0);
      for (std::size_t j = 0; j < kBefore; ++j) worst[j] = std::max(worst[j], pooled[j] * scale);
    }
    const double least = std::accumulate(worst.begin(), worst.end(), 0.0) / kBefore;
    const double total = std::accumulate(mean[g].begin(), mean[g].end(), 0.0);
    std::vector<double> expected(kBefore);
    const auto norm = [&](std::size_t head, std::size_t j) {
      return static_cast<double>(norms[2 * head][j]) + static_cast<double>(norms[2 * head + 1][j]);
    };
    for (std::size_t j = 0; j < kBefore; ++j)
      expected[j] = std::max(worst[j], least) * norm(g, j) / (norm(0, j) + norm(1, j));
    double held = 0;
    for (const std::uint32_t j : positions_by(mean[g])) {
      if (held >= (0.7 - bias) * total) break;
      held += mean[g][j];
      expected[j] = 1e30 * mean[g][j];
    }
    EXPECT_GT(held, 0);
    expected.resize(30, static_cast<double>(kForced));
    expect_near(all[g], expected);
  }
}

// What is taken off the share is the attention of the position before the window (0.05), not the window's own
// (0.25), which would leave one entry locked.
TEST(Defensive, WindowBiasIsMeasuredBeforeTheWindow) {
  HandLayer layer(1, 1, 4);
  layer.window({{0.5F, 0.2F, 0.05F, 0.25F}}, 1).output_norms({{1, 1, 1, 1}});
  const std::vector<float> scores = layer.score("defensive", {{"window", whole(1)}, {"kernel", whole(1)}});
  EXPECT_GT(scores[0], scores[1]);
  EXPECT_GT(scores[1], 1e20F);
  EXPECT_FLOAT_EQ(scores[2], 0.25F);  // raised to the mean
  EXPECT_EQ(scores[3], kForced);
}

// Small attentions that differ in the fourth digit: the best is told from the others.
TEST(Defensive, LockedEntriesAreOrderedToFullPrecision) {
  HandLayer layer(1, 1, 2001);
  std::vector<float> row(2001);
  for (std::size_t j = 0; j < 2000; ++j) row[j] = 1e-5F * (1 + 1e-4F * static_cast<float>(j));
  row[2000] = 0.98F;
  layer.window({row}, 1).output_norms({std::vector<float>(2001, 1.0F)});
  const std::vector<float> scores = layer.score("defensive", {{"window", whole(1)}});
  for (std::size_t j = 1500; j < 2000; ++j) EXPECT_GT(scores[j], scores[j - 1]);
}

TEST(DropKv, EqualsBruteForceSingleEvictionError) {
  constexpr std::size_t kTokens = 12;
  HandLayer layer(4, 2, kTokens);
  const Lists rows = random_attention(4, kTokens, 5, 6);
  const Lists values = random_rows(2 * kTokens, 2, 7);
  layer.window(rows, 5).values(values);
  const auto scores = layer.score_all("dropkv", {{"window", whole(5)}});
  const auto output = [&](std::size_t i, std::size_t without, std::size_t c) {
    double sum = 0;
    double mass = 0;
    for (std::size_t j = 0; j < kTokens; ++j) {
      if (j == without) continue;
      sum += static_cast<double>(rows[i][j]) * static_cast<double>(values[i / 10 * kTokens + j][c]);
      mass += static_cast<double>(rows[i][j]);
    }
    return sum / mass;
  };
  for (std::size_t g = 0; g < 2; ++g) {
    std::vector<double> expected(kTokens);
    for (std::size_t j = 0; j < kTokens; ++j)
      for (std::size_t i = 10 * g; i < 10 * g + 10; ++i)
        for (std::size_t c = 0; c < 2; ++c) expected[j] += std::pow(output(i, j, c) - output(i, kTokens, c), 2);
    expect_near(scores[g], expected);
  }
}

TEST(DropKv, WhereNothingRemainsTheWholeOutputIsLost) {
  HandLayer layer(1, 1, 2);
  layer.window({{1, 0}}, 1).values({{3, 4}, {1, 1}});
  EXPECT_THAT(layer.score("dropkv", {{"window", whole(1)}}), ElementsAre(25.0F, 0.0F));
}

// Lists 2 and 3 see 3 and 4 keys; the recorded row before them isn't the question's.
TEST(Finch, RowsAreTheQuestions) {
  HandLayer layer(1, 1, 4);
  layer.window({{9, 9, 0, 0}, {0.5F, 0.25F, 0.25F, 0}, {0.25F, 0.5F, 0.125F, 0.125F}}, 3);
  layer.features_.question_rows = 2;
  EXPECT_THAT(layer.score("finch"), ElementsAre(1.25F, 1.375F, kForced, kForced));
  EXPECT_THAT(layer.score("finch", {{"parity_bugs", true}}), ElementsAre(0.875F, 1.0F, kForced, kForced));
}

TEST(PyramidInfer, LaterRowsCountMore) {
  HandLayer layer(1, 1, 4);
  layer.window({{0.5F, 0.5F, 0, 0}, {0.25F, 0.25F, 0.5F, 0}, {0, 1, 0, 0}}, 3);
  const std::map<std::string, Value> params{{"window", whole(3)}, {"distance_weight", 2.0}};
  EXPECT_THAT(layer.score("pyramidinfer", params), ElementsAre(FloatEq(0.875F / 3), kForced, kForced, kForced));
  EXPECT_THAT(layer.score("pyramidinfer", {{"window", whole(2)}, {"distance_weight", 3.0}}),
              ElementsAre(FloatEq(0.125F), FloatEq(1.625F), kForced, kForced));
}

TEST(H2o, RecentRatioKeepsHalfTheBudgetForTheMostRecent) {
  HandLayer layer(1, 1, 9);
  layer.column_sums({{5, 9, 1, 7, 2, 8, 0.5F, 0.25F, 6}});
  const Ranked ranked = rank_by_hand(layer, {"h2o", {{"recent_ratio", 0.5}}, ""}, kToken);
  for (std::size_t k = 0; k <= 9; ++k) {
    std::set<std::uint32_t> expected;
    for (std::size_t i = 0; i < k / 2; ++i) expected.insert(static_cast<std::uint32_t>(8 - i));
    for (const std::uint32_t j : {1, 5, 3, 8, 0, 4, 2, 6, 7})
      if (expected.size() < k) expected.insert(j);
    EXPECT_THAT(kept_set(ranked.ranking.head(0), k), testing::ElementsAreArray(expected)) << k;
  }
}

TEST(H2o, AndObservedRankAlikeAfterMultiplyingByTheRowsThatSee) {
  HandLayer layer(4, 2, 25);
  layer.column_sums(random_norms(4, 25, 9));
  const auto h2o = layer.score_all("h2o");
  auto observed = layer.score_all("observed");
  for (std::size_t g = 0; g < 2; ++g) {
    for (std::size_t j = 0; j < 25; ++j) observed[g][j] *= static_cast<float>(25 - j);
    EXPECT_EQ(positions_by(observed[g]), positions_by(h2o[g]));
  }
}

// The L1 norm unless asked otherwise, and sinks before everything.
TEST(Vatp, NormIsL1AndSinksAreForced) {
  HandLayer layer(1, 1, 3);
  layer.column_sums({{1, 2, 0.5F}}).values({{1, 1}, {3, 4}, {-6, 8}});
  const Value one = whole(1);
  EXPECT_THAT(layer.score("vatp", {{"sinks", one}}), ElementsAre(kForced, 14.0F, 7.0F));
  EXPECT_THAT(layer.score("vatp", {{"sinks", one}, {"norm", text("l2")}}), ElementsAre(kForced, 10.0F, 5.0F));
  layer.window({{9, 9, 9}, {0.5F, 0.5F, 0}, {0.25F, 0.25F, 0.5F}}, 3);
  EXPECT_THAT(layer.score("vatp", {{"sinks", one}, {"base", text("last400")}, {"rows", whole(2)}}),
              ElementsAre(kForced, 2.625F, 3.5F));
}

// With kernel 5 the first entry gets 3/5 of the mean of what is there, the second 4/5.
TEST(Snapkv, AveragePoolingCountsThePadding) {
  HandLayer layer(1, 1, 8);
  layer.window({std::vector<float>(8, 0.125F)}, 1);
  EXPECT_THAT(layer.score("snapkv", {{"window", whole(1)}}),
              ElementsAre(FloatEq(0.075F), FloatEq(0.1F), FloatEq(0.125F), FloatEq(0.125F), FloatEq(0.125F),
                          FloatEq(0.1F), FloatEq(0.075F), kForced));
}

// For max pooling they differ; average pooling and the group's mean commute.
TEST(Snapkv, PoolThenGroupDiffersFromGroupThenPoolForMaxOnly) {
  HandLayer layer(3, 1, 30);
  layer.window(random_attention(3, 30, 4, 10), 4);
  for (const char* pool : {"avg", "max"}) {
    std::map<std::string, Value> params{{"window", whole(4)}, {"pool", text(pool)}};
    const std::vector<float> group_first = layer.score("snapkv", params);
    params["order"] = text("pool_then_group");
    const std::vector<float> pool_first = layer.score("snapkv", params);
    float most = 0;
    for (std::size_t j = 0; j < 26; ++j) most = std::max(most, std::abs(pool_first[j] - group_first[j]));
    EXPECT_EQ(most > 1e-6F, std::string(pool) == "max");
  }
}

TEST(Snapkv, PresetsSetDefaultsThatExplicitParametersOverride) {
  const Registry registry = builtin_policies();
  const auto params = [&](std::map<std::string, Value> given) {
    return registry.make_scorer({"snapkv", std::move(given), ""}).params;
  };
  const std::string plain = "group=mean kernel=5 order=group_then_pool pool=avg preset=orig window=32";
  EXPECT_EQ(params({}), plain);
  EXPECT_EQ(params({{"preset", text("orig")}}), plain);
  EXPECT_EQ(params({{"preset", text("kvpress")}}),
            "group=mean kernel=5 order=pool_then_group pool=avg preset=kvpress window=64");
  EXPECT_EQ(params({{"preset", text("factory")}}),
            "group=mean kernel=7 order=group_then_pool pool=max preset=factory window=8");
  EXPECT_EQ(params({{"preset", text("factory")}, {"window", whole(5)}, {"pool", text("avg")}}),
            "group=mean kernel=7 order=group_then_pool pool=avg preset=factory window=5");
}

// A window entry of a head with next to no attention comes before the best of all heads.
TEST(Windows, OfAllHeadsComeFirstWhereHeadsCompete) {
  HandLayer layer(2, 2, 6);
  layer
      .window(
          {{0.9F, 0.08F, 0.02F, 0, 0, 0}, {0.9F, 0.05F, 0.05F, 0, 0, 0}, {0, 0, 0, 0, 1, 0}, {0, 0, 0, 0, 0.5F, 0.5F}},
          2)
      .values(Lists(12, {1, 1}))
      .output_norms(Lists(2, std::vector<float>(6, 1.0F)));
  const HeadAllocator adakv = builtin_policies().make_head_allocator({"adakv", {{"alpha", 0.0}}, ""});
  for (const char* name : {"snapkv", "cake", "lava", "defensive", "pyramidinfer"}) {
    const RankedByHand ranked({layer.score_all(name, {{"window", whole(2)}})});
    EXPECT_THAT(adakv.prepare(ranked.heads(0))(4), ElementsAre(2, 2)) << name;
    EXPECT_THAT(adakv.prepare(ranked.heads(0))(5), ElementsAre(3, 2)) << name;
  }
}

const std::vector<std::string> kAll{"cake",     "defensive",    "dropkv",       "finch",  "keyformer", "lava", "nacl",
                                    "observed", "pyramidinfer", "scissorhands", "snapkv", "tova",      "vatp", "h2o"};

// One token, fewer tokens than any window, and rows that are all alike; zero vectors, too.
TEST(AttentionScorers, AreFiniteOnTheSmallestAndTheFlattestInput) {
  for (const std::int64_t tokens : {1, 3, 40}) {
    HandLayer layer(2, 1, tokens);
    const auto n = static_cast<std::size_t>(tokens);
    const Lists flat(2 * n, std::vector<float>(n, 1.0F / static_cast<float>(n)));
    layer.window(flat, tokens).column_sums(Lists(2, std::vector<float>(n, 1.0F)));
    layer.values(Lists(n, {0, 0})).output_norms(Lists(2, std::vector<float>(n, 0.0F)));
    layer.features_.question_rows = 1;
    for (const std::string& name : kAll) {
      const std::vector<float> scores = layer.score(name);
      EXPECT_EQ(scores.size(), n);
      for (const float score : scores) EXPECT_TRUE(std::isfinite(score)) << name << ' ' << tokens;
    }
    if (tokens > 3) continue;
    for (const char* name : {"cake", "defensive", "lava", "nacl", "pyramidinfer", "snapkv"})
      EXPECT_THAT(layer.score(name), testing::Each(kForced)) << name << ": all is window";
  }
}

}  // namespace
}  // namespace depthkv
