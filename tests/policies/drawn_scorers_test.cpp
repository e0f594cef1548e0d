// SPDX-License-Identifier: Apache-2.0
// Scorers that read attention and draw: nacl and keyformer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "policies/scorers/noise.h"
#include "support/hand_layer.h"
#include "support/random_layer.h"
#include "support/spec.h"

namespace depthkv {
namespace {

using testing::ElementsAre;

TEST(Nacl, WithoutARandomShareItIsTheProxiesAttention) {
  HandLayer layer(2, 1, 4);
  layer.window({{0.5F, 0.25F, 0.25F, 0}, {0.25F, 0.25F, 0.25F, 0.25F}, {0, 1, 0, 0}, {0, 0, 0.5F, 0.5F}}, 2);
  const Ranked ranked = rank_by_hand(layer, {"nacl", {{"random_share", 0.0}, {"proxies", whole(1)}}, ""}, kToken);
  EXPECT_THAT(ranked.ranking.head(0), ElementsAre(3, 2, 0, 1));  // 0.125 0.125 0.375, ties by position
}

TEST(Nacl, RandomShareIsNestedDeterministicAndBesideTheBest) {
  HandLayer layer(2, 2, 30);
  layer.window(random_attention(2, 30, 3, 2), 3);
  layer.features_.sample_seed = 7;
  const PolicySpec spec{"nacl", {{"random_share", 0.4}, {"proxies", whole(3)}, {"temperature", 0.5}}, ""};
  const Ranked ranked = rank_by_hand(layer, spec, kToken);
  const Ranked again = rank_by_hand(layer, spec, kToken);
  PolicySpec other = spec;
  other.params["seed"] = whole(1);
  const Ranked seeded = rank_by_hand(layer, other, kToken);
  const Ranked plain = rank_by_hand(layer, {"nacl", {{"random_share", 0.0}, {"proxies", whole(3)}}, ""}, kToken);
  for (int g = 0; g < 2; ++g) {
    EXPECT_TRUE(std::ranges::equal(ranked.ranking.head(g), again.ranking.head(g)));
    EXPECT_FALSE(std::ranges::equal(ranked.ranking.head(g), seeded.ranking.head(g)));
    EXPECT_FALSE(std::ranges::equal(ranked.ranking.head(g), plain.ranking.head(g)));
    for (std::size_t k = 0; k <= 30; ++k) {
      const auto kept = kept_set(ranked.ranking.head(g), k);
      const auto best = kept_set(plain.ranking.head(g), static_cast<std::size_t>(0.6 * static_cast<double>(k)));
      EXPECT_TRUE(std::ranges::includes(kept, best)) << k;
    }
  }
}

// The first one drawn follows softmax(S / temperature).
TEST(Nacl, DrawsByTheSoftmaxOfTheScores) {
  HandLayer layer(1, 1, 4);
  layer.window({{0.5F, 0.3F, 0.1F, 0.1F}}, 1);
  const PolicySpec spec{"nacl", {{"random_share", 1.0}, {"proxies", whole(1)}, {"temperature", 0.25}}, ""};
  std::array<int, 4> drawn{};
  constexpr int kDraws = 4000;
  for (int i = 0; i < kDraws; ++i) {
    layer.features_.sample_seed = static_cast<std::uint64_t>(i);
    ++drawn.at(rank_by_hand(layer, spec, kToken).ranking.head(0)[1]);  // 0 is the proxy
  }
  const double sum = std::exp(2.0) + std::exp(1.2) + std::exp(0.4);
  EXPECT_NEAR(drawn[0], kDraws * std::exp(2.0) / sum, 5 * std::sqrt(kDraws) / 2);
  EXPECT_NEAR(drawn[1], kDraws * std::exp(1.2) / sum, 5 * std::sqrt(kDraws) / 2);
  EXPECT_EQ(drawn[3], 0);
}

TEST(Keyformer, SumsSoftmaxesOfLogitsUnderNoise) {
  HandLayer layer(2, 1, 6);
  const Lists rows = random_attention(2, 6, 2, 8);
  layer.window(rows, 2);
  std::vector<double> expected(6);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Noise noise(3, layer.features_, static_cast<std::int64_t>(i / 2));
    const std::uint64_t position = 4 + i % 2;
    std::vector<double> weights(6);
    for (std::size_t j = 0; j <= position; ++j)
      weights[j] = std::pow(static_cast<double>(rows[i][j]) * std::exp(noise.gumbel((position << 32U) + j)), 1 / 1.5);
    const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    for (std::size_t j = 0; j < 6; ++j) expected[j] += weights[j] / sum / 2;
  }
  const std::vector<float> scores = layer.score("keyformer", {{"window", whole(2)}, {"tau", 1.5}, {"seed", whole(3)}});
  for (std::size_t j = 0; j < 6; ++j) EXPECT_NEAR(scores[j], expected[j], 1e-5);
  const std::vector<float> flat = layer.score("keyformer", {{"window", whole(2)}, {"tau", 1e6}});
  EXPECT_NEAR(flat[5], 1 / 6.0, 1e-4);  // tau drowns all: each row spread over what it sees
  EXPECT_NEAR(flat[0], 1 / 5.0 + 1 / 6.0, 1e-4);
}

}  // namespace
}  // namespace depthkv
