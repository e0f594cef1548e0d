// SPDX-License-Identifier: Apache-2.0
// Scorers of keys, values and queries against numbers worked out by hand and against loops that follow the formulas.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <random>

#include "depthkv/error.h"
#include "kernels/rotary.h"
#include "support/hand_layer.h"
#include "support/scratch.h"
#include "support/synthetic_trace.h"

namespace depthkv {
namespace {

using testing::ElementsAre;
using testing::FloatEq;
using testing::FloatNear;
using testing::HasSubstr;

constexpr float kNear = 1e-5F;

Tensor noise(std::int64_t heads, std::int64_t rows, std::int64_t columns, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  Tensor tensor(heads, rows, columns);
  for (float& x : tensor.values()) x = normal(random);
  return tensor;
}

Tensor score(const LayerFeatures& layer, const std::string& name, const std::map<std::string, Value>& params = {}) {
  return builtin_policies().make_scorer({name, params, "test"}).score(layer, ops_for(Device::cpu));
}

// One KV head with `group` query heads and noise for everything that these scorers read.
class NoisyLayer {
 public:
  explicit NoisyLayer(std::int64_t tokens, int group = 2, int dimensions = 6)
      : keys_(noise(1, tokens, dimensions, 1)),
        values_(noise(1, tokens, dimensions, 2)),
        queries_(noise(group, tokens, dimensions, 3)),
        mean_(noise(group, 1, dimensions, 4)),
        square_(group, dimensions, dimensions) {
    for (std::int64_t h = 0; h < group; ++h) {
      for (std::int64_t a = 0; a < dimensions; ++a)
        for (std::int64_t b = 0; b < dimensions; ++b)
          square_.row(h, a)[static_cast<std::size_t>(b)] =
              mean_.row(h, 0)[static_cast<std::size_t>(a)] * mean_.row(h, 0)[static_cast<std::size_t>(b)] +
              (a == b ? 0.5F : 0.0F);
    }
    features.shape = {group, 1, dimensions};
    features.layers = 1;
    features.tokens = tokens;
    features.attention_scale = 1 / std::sqrt(static_cast<double>(dimensions));
    features.rotary = {Rotary::Pairs::half_split, plain_frequencies(100, static_cast<std::size_t>(dimensions))};
    features.keys = features.unrotated_keys = keys_.view();
    features.values = values_.view();
    features.queries = queries_.view();
    features.query_mean = mean_.view();
    features.query_second_moment = square_.view();
  }

  LayerFeatures features;
  Tensor keys_, values_, queries_, mean_, square_;
};

// Unit keys (1, 0), (0, 1), (1, 0): the mean is (2/3, 1/3).
TEST(KeyScorers, KeydiffPrefersKeysAwayFromTheMeanDirection) {
  HandLayer layer(1, 1, 3);
  layer.keys({{2.0F, 0.0F}, {0.0F, 5.0F}, {1.0F, 0.0F}});
  const float length = std::sqrt(5.0F);
  EXPECT_THAT(layer.score("keydiff"), ElementsAre(FloatEq(-2 / length), FloatEq(-1 / length), FloatEq(-2 / length)));
  layer.keys({{4.0F, 0.0F}, {0.0F, 10.0F}, {2.0F, 0.0F}});  // lengths don't matter
  EXPECT_THAT(layer.score("keydiff"), ElementsAre(FloatEq(-2 / length), FloatEq(-1 / length), FloatEq(-2 / length)));
  layer.keys({{0.0F, 0.0F}, {0.0F, 0.0F}, {0.0F, 0.0F}});
  EXPECT_THAT(layer.score("keydiff"), ElementsAre(0.0F, 0.0F, 0.0F));
}

TEST(KeyScorers, KnormDoesNotSeeTheRotation) {
  NoisyLayer layer(20);
  const Tensor before = score(layer.features, "knorm");
  const Tensor turned = unrotated(layer.features.keys, layer.features.rotary);
  layer.features.keys = turned.view();
  const Tensor after = score(layer.features, "knorm");
  for (std::size_t j = 0; j < 20; ++j) EXPECT_NEAR(before.row(0, 0)[j], after.row(0, 0)[j], kNear);
}

// Partitions of 2 behind 1 sink; ranges of the next partition: channel 0 from 0 to 2, channel 1 from 0 to 4. Of the
// first two tokens z is (0.5, 0.5) and (1, 0): deviations 0 and sqrt(1/2).
TEST(KeyScorers, LagkvComparesWithThePartitionAfter) {
  const std::vector<std::vector<float>> rows{{9, 9}, {1, 2}, {2, 0}, {0, 4}, {2, 0}, {7, 7}};
  HandLayer layer(1, 1, 6);
  layer.keys(rows).values(rows);
  std::map<std::string, Value> params{{"sinks", std::int64_t{1}}, {"lag", std::int64_t{2}}};
  EXPECT_THAT(layer.score("lagkv", params), ElementsAre(1.0F, 0.0F, 0.5F, 1.0F, 1.0F, 1.0F));
  params["cross"] = true;
  const float more = std::exp(std::sqrt(0.5F));
  EXPECT_THAT(layer.score("lagkv", params),
              ElementsAre(1.0F, FloatEq(1 / (1 + more)), FloatEq(more / (1 + more)), 1.0F, 1.0F, 1.0F));
}

TEST(KeyScorers, LagkvOfAShortPromptIsSinksThenRecents) {
  HandLayer layer(1, 1, 4);
  layer.keys({{1, 2}, {3, 4}, {5, 6}, {7, 8}}).values({{1, 2}, {3, 4}, {5, 6}, {7, 8}});
  EXPECT_THAT(layer.score("lagkv", {{"sinks", std::int64_t{1}}, {"lag", std::int64_t{2}}}),
              ElementsAre(1.0F, 0.25F, 0.5F, 0.75F));
}

// Squared norms 1, 3 | 4: shares of their blocks of two are 1/4, 3/4 | 1; products 1/16, 9/16, 1 over 26/16.
TEST(KeyScorers, CurMultipliesSharesOfBlocks) {
  HandLayer layer(1, 1, 3);
  const float root = std::sqrt(3.0F);
  layer.keys({{1, 0}, {root, 0}, {2, 0}}).values({{0, 1}, {0, root}, {0, 2}});
  std::map<std::string, Value> params{{"window", std::int64_t{2}}, {"sinks", std::int64_t{0}}};
  EXPECT_THAT(layer.score("cur", params),
              ElementsAre(FloatNear(1 / 26.0F, kNear), FloatNear(9 / 26.0F, kNear), FloatNear(16 / 26.0F, kNear)));
  params["sinks"] = std::int64_t{1};
  EXPECT_EQ(layer.score("cur", params)[0], 1.0F);
}

// Centred keys -1, 0, 1 in one dimension and 0 in the other: leverages x^2 / (2 + jitter), before standardising.
TEST(KeyScorers, LeverageWithoutASketchIsTheTextbooks) {
  HandLayer layer(1, 1, 3);
  Tensor keys(1, 3, 2);
  std::ranges::copy(std::vector<float>{4, 7, 5, 7, 6, 7}, keys.values().begin());
  layer.features_.unrotated_keys = keys.view();
  // Values l, 0, l with mean 2l/3 and unbiased deviation l / sqrt(3).
  const float third = std::numbers::sqrt3_v<float> / 3;
  EXPECT_THAT(layer.score("leverage", {{"sketch", std::int64_t{0}}}),
              ElementsAre(FloatNear(third, kNear), FloatNear(-2 * third, kNear), FloatNear(third, kNear)));
}

// Trap 19: kvpress's logits have no scale, and its padding's logits are nearly 0 where minus infinity was meant.
TEST(KeyScorers, NoncausalHasUnscaledLogitsAndItsPaddingCountsOnlyOnRequest) {
  for (const bool bugs : {false, true}) {
    const std::int64_t n = 5;
    const std::int64_t chunk = 3;
    const NoisyLayer layer(n, 1);
    const auto dot = [&](std::int64_t i, std::int64_t j) {
      double sum = 0;
      for (std::size_t c = 0; c < 6; ++c)
        sum += static_cast<double>(layer.queries_.row(0, i)[c]) * static_cast<double>(layer.keys_.row(0, j)[c]);
      return sum;
    };
    std::vector<double> sums(n);
    for (std::int64_t begin = 0; begin < n; begin += chunk) {
      const std::int64_t end = std::min(n, begin + chunk);
      const auto padding = bugs ? static_cast<double>(begin + chunk - end) : 0.0;
      for (std::int64_t i = begin; i < end; ++i) {
        double total = padding * std::exp(-1e-9);
        for (std::int64_t j = begin; j < end; ++j) total += std::exp(dot(i, j));
        for (std::int64_t j = begin; j < end; ++j) sums[static_cast<std::size_t>(j)] += std::exp(dot(i, j)) / total;
      }
      for (std::int64_t j = begin; j < end; ++j)
        sums[static_cast<std::size_t>(j)] += padding / static_cast<double>(chunk);
    }
    for (std::int64_t j = 0; j < n; ++j) {
      double square = 0;
      for (const float v : layer.values_.row(0, j)) square += static_cast<double>(v) * static_cast<double>(v);
      sums[static_cast<std::size_t>(j)] *= std::sqrt(square);
    }
    std::vector<double> pooled(n);
    for (std::int64_t j = 0; j < n; ++j)
      for (std::int64_t k = std::max<std::int64_t>(0, j - 1); k <= std::min(n - 1, j + 1); ++k)
        pooled[static_cast<std::size_t>(j)] += sums[static_cast<std::size_t>(k)] / 3;
    double mean = 0;
    for (const double x : pooled) mean += x / static_cast<double>(n);
    double squares = 0;
    for (const double x : pooled) squares += (x - mean) * (x - mean);
    const double deviation = std::sqrt(squares / static_cast<double>(n - 1));
    const Tensor scores = score(layer.features, "noncausal", {{"chunk", chunk}, {"parity_bugs", bugs}});
    for (std::size_t j = 0; j < pooled.size(); ++j)
      EXPECT_NEAR(scores.row(0, 0)[j], (pooled[j] - mean) / deviation, 1e-4) << "bugs " << bugs << ", " << j;
  }
}

TEST(KeyScorers, CompactorWeighsLeverageByWhatIsPruned) {
  NoisyLayer layer(40);
  const Registry registry = builtin_policies();
  EXPECT_TRUE(registry.make_scorer({"compactor", {}, ""}).uses_keep);
  EXPECT_FALSE(registry.make_scorer({"compactor", {{"lambda", 0.5}}, ""}).uses_keep);
  layer.features.keep = 0.25;
  const Tensor by_budget = score(layer.features, "compactor");
  const Tensor fixed = score(layer.features, "compactor", {{"lambda", 0.75}});
  EXPECT_TRUE(std::ranges::equal(by_budget.values(), fixed.values()));
  const auto row = by_budget.row(0, 0);
  const float top = *std::ranges::max_element(row);
  for (const std::size_t j : {0, 7, 36, 39}) EXPECT_EQ(row[j], top);  // max, not more
  const LayerFeatures middle = layer.features.slice(8, 36);
  const Tensor outliers = score(middle, "leverage");
  const Tensor attention = score(middle, "noncausal");
  for (std::size_t j = 0; j < 28; ++j)
    EXPECT_NEAR(row[8 + j], 0.75F * outliers.row(0, 0)[j] + attention.row(0, 0)[j], kNear);
}

// The mean of the rotated mean queries, position by position.
void expect_average_over_horizon(const NoisyLayer& layer) {
  const std::int64_t horizon = 5;
  std::vector<double> mu(6);
  for (std::int64_t p = 12; p < 12 + horizon; ++p) {
    std::vector<float> q(layer.mean_.values().begin(), layer.mean_.values().end());
    rotate(q, static_cast<double>(p), layer.features.rotary);
    for (std::size_t c = 0; c < 6; ++c) mu[c] += static_cast<double>(q[c]) / static_cast<double>(horizon);
  }
  std::vector<double> weights;
  double total = 0;
  for (std::int64_t j = 4; j < 12; ++j) {
    double logit = 0;
    for (std::size_t c = 0; c < 6; ++c) logit += mu[c] * static_cast<double>(layer.keys_.row(0, j)[c]) / std::sqrt(6.0);
    total += weights.emplace_back(std::exp(logit));
  }
  const Tensor scores =
      score(layer.features, "expected_attention", {{"horizon", horizon}, {"covariance", false}, {"value_norm", false}});
  for (std::size_t j = 0; j < 4; ++j) EXPECT_EQ(scores.row(0, 0)[j], kForced);
  for (std::size_t i = 0; i < weights.size(); ++i) EXPECT_NEAR(scores.row(0, 0)[4 + i], weights[i] / total, kNear) << i;
}

TEST(KeyScorers, ExpectedAttentionAveragesOverTheHorizon) {
  NoisyLayer layer(12, 1);
  expect_average_over_horizon(layer);
  layer.features.rotary = {Rotary::Pairs::interleaved, {0.9, 0.05}, 1.3};  // two of six dimensions stay
  expect_average_over_horizon(layer);
}

TEST(KeyScorers, ExpectedAttentionAddsTheQueriesSpread) {
  const NoisyLayer layer(12, 1);
  // A covariance of 0.5 in every direction, unrotated, adds |k|^2 / 4d to each logit.
  LayerFeatures still = layer.features;
  still.rotary = {};
  const Tensor with = score(still, "expected_attention", {{"value_norm", false}});
  const Tensor without = score(still, "expected_attention", {{"value_norm", false}, {"covariance", false}});
  const auto square = [&](std::int64_t j) {
    double sum = 0;
    for (const float k : layer.keys_.row(0, j)) sum += static_cast<double>(k) * static_cast<double>(k);
    return sum;
  };
  const double gained = std::log(with.row(0, 0)[5] / without.row(0, 0)[5] * without.row(0, 0)[9] / with.row(0, 0)[9]);
  EXPECT_NEAR(gained, (square(5) - square(9)) / 24, 1e-4);
}

// Two dimensions, where the inverse can be written down.
TEST(KeyScorers, CapIsTheGainOfLogDeterminant) {
  NoisyLayer layer(7, 1, 2);
  layer.features.rotary = {};
  double a = 1;
  double b = 0;
  double d = 1;
  std::vector<double> weights;
  const auto mean = layer.mean_.row(0, 0);
  for (std::int64_t j = 0; j < 7; ++j) {
    const auto k = layer.keys_.row(0, j);
    const double dot = static_cast<double>(mean[0] * k[0] + mean[1] * k[1]);
    weights.push_back(dot / std::hypot(mean[0], mean[1]) / std::hypot(k[0], k[1]));
  }
  const double top = *std::ranges::max_element(weights);
  for (std::int64_t j = 0; j < 7; ++j) {
    double& w = weights[static_cast<std::size_t>(j)];
    w = std::exp(5 * (w - top));
    const auto v = layer.values_.row(0, j);
    a += (w + 1e-6) * static_cast<double>(v[0] * v[0]);
    b += (w + 1e-6) * static_cast<double>(v[0] * v[1]);
    d += (w + 1e-6) * static_cast<double>(v[1] * v[1]);
  }
  const Tensor scores = score(layer.features, "cap", {{"sinks", std::int64_t{0}}});
  for (std::size_t j = 0; j < 7; ++j) {
    const auto v = layer.values_.row(0, static_cast<std::int64_t>(j));
    const double form = (d * static_cast<double>(v[0] * v[0]) - 2 * b * static_cast<double>(v[0] * v[1]) +
                         a * static_cast<double>(v[1] * v[1])) /
                        (a * d - b * b);
    EXPECT_NEAR(scores.row(0, 0)[j], weights[j] * form, 1e-4) << j;
  }
}

// Queries along (3, 4) / 5, turned so that their mean points that way.
TEST(KeyScorers, QfilterProjectsOnTheQueriesDirection) {
  HandLayer layer(2, 1, 2);
  layer.keys({{5.0F, 0.0F}, {0.0F, -5.0F}});
  Tensor queries(2, 3, 2);
  std::ranges::copy(std::vector<float>{3, 4, 6, 8, 9, 12, 3, 4, -3, -4, 30, 40}, queries.values().begin());
  layer.features_.window_queries = queries.view();
  EXPECT_THAT(layer.score("qfilter"), ElementsAre(FloatNear(3.0F, kNear), FloatNear(-4.0F, kNear)));
}

TEST(KeyScorers, QfilterIsCalibratedOnOtherSamples) {
  const ScratchDirectory scratch;
  SyntheticTrace options;
  write_synthetic_trace(scratch.path(), options);
  NoisyLayer layer(20, 2, options.head_dim);
  layer.features.sample = "synthetic";
  const auto calibrated = [&] { return score(layer.features, "qfilter", {{"calibration", scratch.path().string()}}); };
  EXPECT_THAT([&] { calibrated(); }, testing::ThrowsMessage<InputError>(HasSubstr("holds sample synthetic only")));
  options.id = "other";
  options.seed = 2;
  write_synthetic_trace(scratch.path(), options);
  const Tensor two = calibrated();
  const PolicySpec spec{"qfilter", {{"calibration", scratch.path().string()}}, ""};
  const std::string source = builtin_policies().make_scorer(spec).source;
  EXPECT_THAT(source, HasSubstr("other.h5"));
  // Its own queries don't count: another sample of the same name changes nothing.
  options.id = "synthetic";
  options.seed = 3;
  write_synthetic_trace(scratch.path(), options);
  const Tensor again = calibrated();
  for (std::size_t j = 0; j < 20; ++j) EXPECT_NEAR(again.row(0, 0)[j], two.row(0, 0)[j], 1e-4);
  EXPECT_NE(builtin_policies().make_scorer(spec).source, source);
  layer.features.shape.head_dim = 5;
  EXPECT_THAT([&] { calibrated(); }, testing::ThrowsMessage<InputError>(HasSubstr("calibrate on the same model")));
  EXPECT_THROW(score(layer.features, "qfilter", {{"calibration", (scratch / "none").string()}}), InputError);
}

// One row over three entries: without entry j the others' weights grow to 1.
TEST(KeyScorers, OracleEvictionIsTheErrorOfDroppingTheEntryAlone) {
  HandLayer layer(1, 1, 2);
  Tensor rows(1, 1, 3);
  std::ranges::copy(std::vector<float>{0.5F, 0.25F, 0.25F}, rows.values().begin());
  Tensor values(1, 3, 2);
  std::ranges::copy(std::vector<float>{1, 0, 0, 1, 1, 1}, values.values().begin());
  layer.features_.judged = rows.view();
  layer.features_.all_values = values.view();
  // o = (0.75, 0.5). Without 0: (0.5, 1); without 1: (1, 1/3).
  EXPECT_THAT(layer.score("oracle_eviction"),
              ElementsAre(FloatNear(0.0625F + 0.25F, kNear), FloatNear(0.0625F + 1.0F / 36, kNear)));
  EXPECT_THAT(layer.score("oracle_output"),
              ElementsAre(FloatNear(0.25F * (0.0625F + 0.25F), kNear), FloatNear(0.0625F * (0.5625F + 0.25F), kNear)));
}

// What can be scored in parts is scored in parts, by whoever promises it.
TEST(KeyScorers, PartsOfTheCacheCanBeScoredByThemselves) {
  const Registry registry = builtin_policies();
  const NoisyLayer layer(40);
  const LayerFeatures part = layer.features.slice(10, 30);
  for (const auto& entry : registry.scorers()) {
    const Scorer scorer = registry.make_scorer({entry.name, {}, ""});
    if (!scorer.needs.positional() || scorer.whole_cache || scorer.needs.has(Feature::output_norms)) continue;
    const Tensor scores = scorer.score(part, ops_for(Device::cpu));
    EXPECT_EQ(scores.columns(), 20) << entry.name;
    for (const float x : scores.values()) EXPECT_TRUE(std::isfinite(x)) << entry.name;
  }
}

}  // namespace
}  // namespace depthkv
