// SPDX-License-Identifier: Apache-2.0
// Head allocators against numbers worked out by hand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <limits>

#include "depthkv/error.h"
#include "support/files.h"
#include "support/ranked_by_hand.h"
#include "support/scratch.h"

namespace depthkv {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;
using Entries = std::vector<std::int64_t>;
using Numbers = std::vector<double>;
using ParamMap = std::map<std::string, Value>;

Entries heads(const std::string& name, const ParamMap& params, const HeadInput& input, std::int64_t entries) {
  return builtin_policies().make_head_allocator({name, params, "test"}).prepare(input)(entries);
}

Entries of_scores(const std::string& name, const ParamMap& params, const RankedByHand::Scores& scores,
                  std::int64_t entries, Protect protect = {}) {
  const RankedByHand sample({scores}, protect);
  return heads(name, params, sample.heads(0), entries);
}

// The best 8 are six of head 0 and two of head 1. Blend: half of 6 and 2 plus half of 4 and 4. Floor: 2 each stay, the
// pool decides the rest.
TEST(HeadAllocators, AdakvBlendAndFloorGiveDifferentBudgets) {
  const RankedByHand::Scores scores{{9, 9, 9, 9, 9, 9, 1, 1}, {8, 8, 2, 2, 2, 2, 2, 2}};
  const auto mode = [&](const char* name) {
    return of_scores("adakv", {{"alpha", 0.5}, {"mode", std::string(name)}}, scores, 8);
  };
  EXPECT_THAT(mode("blend"), ElementsAre(5, 3));
  EXPECT_THAT(mode("floor"), ElementsAre(6, 2));
}

// Of an even share of 2 head 0 holds all its mass, head 1 half: 1.5 counts as 0.75.
TEST(HeadAllocators, AdakvNormaliseScalesAHeadByHowConcentratedItIs) {
  const RankedByHand::Scores scores{{3, 1, 0, 0}, {1.5F, 1.5F, 1.5F, 1.5F}};
  const ParamMap plain{{"alpha", 0.0}};
  const ParamMap scaled{{"alpha", 0.0}, {"normalise", true}};
  const ParamMap floor{{"alpha", 0.0}, {"normalise", true}, {"mode", std::string("floor")}};
  EXPECT_THAT(of_scores("adakv", plain, scores, 4), ElementsAre(1, 3));
  EXPECT_THAT(of_scores("adakv", scaled, scores, 4), ElementsAre(2, 2));
  EXPECT_THAT(of_scores("adakv", floor, scores, 4), ElementsAre(2, 2));
  // The same beside a protected entry or a forced one each.
  const RankedByHand::Scores with_window{{3, 1, 0, 0, kForced}, {1.5F, 1.5F, 1.5F, 1.5F, kForced}};
  EXPECT_THAT(of_scores("adakv", scaled, with_window, 6, {0, 1}), ElementsAre(3, 3));
  EXPECT_THAT(of_scores("adakv", scaled, with_window, 6), ElementsAre(3, 3));
  // No mass, no scaling.
  EXPECT_THAT(of_scores("adakv", scaled, {{-1, -2, -3}, {-2, -3, -4}}, 3), ElementsAre(2, 1));
}

// At alpha = 0 no split of a total retains more mass than the pool's.
TEST(HeadAllocators, AdakvAtAlphaZeroRetainsTheMostMassOfAllSplits) {
  std::uint64_t state = 7;
  for (int round = 0; round < 20; ++round) {
    RankedByHand::Scores scores(3, std::vector<float>(5));
    for (auto& head : scores) {
      for (float& score : head) {
        state = state * 6364136223846793005ULL + 1442695040888963407ULL;
        score = static_cast<float>(state >> 60);  // 0 .. 15, with ties
      }
    }
    const RankedByHand sample({scores});
    const auto mass = [&](const Entries& kept) {
      double sum = 0;
      for (std::size_t g = 0; g < 3; ++g) {
        auto sorted = scores[g];
        std::ranges::sort(sorted, std::greater<>());
        for (std::int64_t k = 0; k < kept[g]; ++k) sum += static_cast<double>(sorted[static_cast<std::size_t>(k)]);
      }
      return sum;
    };
    for (std::int64_t total = 0; total <= 15; ++total) {
      double most = 0;
      double most_with_one_each = 0;
      for (std::int64_t a = 0; a <= 5; ++a) {
        for (std::int64_t b = 0; b <= 5; ++b) {
          const std::int64_t c = total - a - b;
          if (c < 0 || c > 5) continue;
          most = std::max(most, mass({a, b, c}));
          if (a > 0 && b > 0 && c > 0) most_with_one_each = std::max(most_with_one_each, mass({a, b, c}));
        }
      }
      // The floor of one entry per head, where there is one for each, is ours.
      const double best =
          mass(heads("adakv", {{"alpha", 0.0}, {"mode", std::string("floor")}}, sample.heads(0), total));
      EXPECT_EQ(best, total < 3 ? most : most_with_one_each);
      const Entries blend = heads("adakv", {{"alpha", 0.0}}, sample.heads(0), total);
      if (std::ranges::min(blend) > 1) {
        EXPECT_EQ(mass(blend), most);
      }
    }
  }
}

class HeadFiles : public testing::Test {
 protected:
  std::string file(const std::string& text) { return write_text(scratch_ / "heads.txt", text).string(); }
  ScratchDirectory scratch_;
};

// 20 entries, importance 1 : 3, beta 2: half of them evenly, half by importance.
TEST_F(HeadFiles, HeadkvSharesOneOverBetaByImportance) {
  const RankedByHand sample(blank_layers(2, 100, 2));
  const std::string table = file("1 3\n2, 2\n");
  EXPECT_THAT(heads("headkv", {{"file", table}, {"beta", 1.0}}, sample.heads(0), 20), ElementsAre(5, 15));
  EXPECT_THAT(heads("headkv", {{"file", table}, {"beta", 2.0}}, sample.heads(0), 24), ElementsAre(9, 15));
  EXPECT_THAT(heads("headkv", {{"file", table}}, sample.heads(1), 20), ElementsAre(10, 10));
  EXPECT_THAT(heads("headkv", {{"file", file("0 0\n")}}, sample.heads(0), 20), ElementsAre(10, 10));
  // Beyond two protected ones each: 16 as 6 and 10.
  const RankedByHand kept(blank_layers(1, 100, 2), {1, 1});
  EXPECT_THAT(heads("headkv", {{"file", file("1 3")}, {"beta", 2.0}}, kept.heads(0), 20), ElementsAre(8, 12));
  EXPECT_EQ(builtin_policies().make_head_allocator({"headkv", {}, ""}).unavailable, "needs a table; set file=FILE");
}

TEST_F(HeadFiles, TablesOfAnotherShapeAreRefused) {
  const RankedByHand sample(blank_layers(2, 100, 2));
  const auto message = [&](const std::string& text, int layer) -> std::string {
    try {
      heads("headkv", {{"file", file(text)}}, sample.heads(layer), 20);
    } catch (const InputError& error) {
      return error.what();
    }
    return "no error";
  };
  const std::string name = (scratch_ / "heads.txt").string();
  EXPECT_EQ(message("1 2\n\n1 2 3\n", 1), name + ":3: found 3 numbers, expected 2: one for each KV head of layer 1");
  EXPECT_EQ(message("1 2\n", 1),
            name + ": found 1 lines of numbers, expected one for each layer of the model; there is a layer 1");
  EXPECT_EQ(message("1 -2\n", 0), name + ":1: found \"-2\", expected a number of at least 0");
  EXPECT_EQ(message("1 2\n3 4\n", 1), "no error");
}

TEST_F(HeadFiles, ExplicitSharesAsGiven) {
  const RankedByHand sample(blank_layers(2, 100, 2));
  EXPECT_THAT(heads("explicit", {{"ratios", Numbers{1, 3}}}, sample.heads(1), 20), ElementsAre(5, 15));
  EXPECT_THAT(heads("explicit", {{"ratios", Numbers{0, 3}}}, sample.heads(1), 20), ElementsAre(1, 19));
  EXPECT_THAT(heads("explicit", {{"file", file("1 1\n1 3\n")}}, sample.heads(1), 20), ElementsAre(5, 15));
  EXPECT_THROW(heads("explicit", {{"ratios", Numbers{1, 2, 3}}}, sample.heads(0), 20), InputError);
  EXPECT_THROW(heads("explicit", {{"ratios", Numbers{1, -2}}}, sample.heads(0), 20), InputError);
  EXPECT_FALSE(builtin_policies().make_head_allocator({"explicit", {}, ""}).unavailable.empty());
}

// Heads 1 and 3 look back least. They keep 10 of 100, or the even share, or what the others have no room for.
TEST(HeadAllocators, DuoStreamsTheHeadsThatLookBackLeast) {
  const RankedByHand sample(blank_layers(1, 100, 4));
  HeadInput input = sample.heads(0);
  const Numbers scores{0.6, 0.3, 0.5, 0.4};
  input.measured = scores;
  const ParamMap params{{"sinks", std::int64_t{2}}, {"recent", std::int64_t{8}}};
  EXPECT_THAT(heads("duo", params, input, 200), ElementsAre(90, 10, 90, 10));
  EXPECT_THAT(heads("duo", params, input, 20), ElementsAre(5, 5, 5, 5));
  EXPECT_THAT(heads("duo", params, input, 390), ElementsAre(100, 95, 100, 95));
  ParamMap quarter = params;
  quarter["sparsity"] = 0.3;  // 1.2 heads
  EXPECT_THAT(heads("duo", quarter, input, 100), ElementsAre(30, 10, 30, 30));
}

// Two query heads and one KV head in two dimensions, against a plain loop.
TEST(HeadAllocators, DuoRotatesMeansToFiveHundredPositions) {
  Tensor keys(1, 3, 2);
  std::ranges::copy(std::vector<float>{1, 2, 3, 0, 2, 1}, keys.values().begin());
  Tensor queries(2, 1, 2);
  std::ranges::copy(std::vector<float>{0.5F, -1, 2, 0}, queries.values().begin());
  LayerFeatures layer;
  layer.shape = {2, 1, 2};
  layer.tokens = 3;
  layer.attention_scale = 0.7;
  layer.unrotated_keys = keys.view();
  layer.query_mean = queries.view();
  const auto measured = [&] {
    return builtin_policies().make_head_allocator({"duo", {}, ""}).measure(layer, ops_for(Device::cpu));
  };
  layer.rotary.pairs = Rotary::Pairs::none;  // every position pays the same: the mean of 1/500 .. 500/500
  EXPECT_THAT(measured(), ElementsAre(DoubleNear(0.501, 1e-9)));
  for (const double magnitude : {1.0, 1.5}) {
    layer.rotary = {Rotary::Pairs::interleaved, {1}, magnitude};
    double expected = 0;
    for (const std::complex<double> query : {std::complex<double>(0.5, -1), std::complex<double>(2, 0)}) {
      const std::complex<double> key(2, 1);  // the mean; one pair turns by one radian per position
      double total = 0;
      double sums = 0;
      for (int p = 0; p < 500; ++p) {
        total += std::exp(0.7 * std::real(query * std::polar(magnitude, 499.0) *
                                          std::conj(key * std::polar(magnitude, static_cast<double>(p)))));
        sums += total;
      }
      expected += sums / total / 500 / 2;
    }
    EXPECT_THAT(measured(), ElementsAre(DoubleNear(expected, 1e-5)));
  }
}

HeadInput priced(const RankedByHand& sample, const std::vector<Numbers>& losses) {
  HeadInput input = sample.heads(0);
  input.price = [=](Rows rows, Metric, std::int64_t head, std::int64_t kept) {
    EXPECT_EQ(rows, Rows::judged);
    return losses[static_cast<std::size_t>(head)][static_cast<std::size_t>(kept)];
  };
  return input;
}

// Gains 5, 3, 1 and 4, 2, 0.
TEST(HeadAllocators, OracleTakesTheLargestGains) {
  const RankedByHand sample(blank_layers(1, 3, 2));
  const HeadInput input = priced(sample, {{9, 4, 1, 0}, {6, 2, 0, 0}});
  EXPECT_THAT(heads("oracle", {}, input, 1), ElementsAre(1, 0));
  EXPECT_THAT(heads("oracle", {}, input, 3), ElementsAre(2, 1));
  EXPECT_THAT(heads("oracle", {}, input, 5), ElementsAre(3, 2));
}

// Head 0 gains nothing unless it is whole. On its envelope every entry gains 2, so 2 entries go there and lose 6 + 3.
// The even split loses less and is taken; the best one nobody finds.
TEST(HeadAllocators, GreedyIsExactOnConvexCurvesOnly) {
  const RankedByHand sample(blank_layers(1, 3, 2));
  const HeadInput input = priced(sample, {{6, 6, 6, 0}, {3, 1.5, 0, 0}});
  EXPECT_THAT(heads("oracle", {}, input, 2), ElementsAre(1, 1));  // 6 + 1.5; (0, 2) loses 6 + 0
  EXPECT_THAT(heads("oracle", {}, input, 3), ElementsAre(3, 0));  // 0 + 3, the best
  EXPECT_THAT(heads("oracle", {}, input, 5), ElementsAre(3, 2));
}

TEST(HeadAllocators, OracleWithoutCurvesSplitsEvenly) {
  const RankedByHand sample(blank_layers(1, 3, 2));
  const double none = std::numeric_limits<double>::quiet_NaN();
  const HeadInput input = priced(sample, {{none, none, none, none}, {none, none, none, none}});
  EXPECT_THAT(heads("oracle", {{"metric", std::string("evidence")}}, input, 4), ElementsAre(2, 2));
}

}  // namespace
}  // namespace depthkv
