// SPDX-License-Identifier: Apache-2.0
// Structures against their definitions, by hand and by plain loops that simulate them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <set>

#include "policies/structures/stages.h"
#include "support/hand_layer.h"
#include "support/random_layer.h"
#include "support/spec.h"

namespace depthkv {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;
using Set = std::set<std::uint32_t>;

const Ops& ops() { return ops_for(Device::cpu); }

// Hands out the scores that it is given.
Scorer scorer_of(const Lists& heads) {
  Scorer scorer;
  scorer.score = [heads](const LayerFeatures&, const Ops&) {
    Tensor scores(static_cast<std::int64_t>(heads.size()), 1, static_cast<std::int64_t>(heads[0].size()));
    for (std::size_t g = 0; g < heads.size(); ++g)
      std::ranges::copy(heads[g], scores.row(static_cast<std::int64_t>(g), 0).begin());
    return scores;
  };
  return scorer;
}

Ranked ranked(const HandLayer& layer, const Scorer& scorer, const PolicySpec& structure, Protect protect = {}) {
  return builtin_policies().make_structure(structure).rank(layer.features_, scorer, protect, ops());
}
Ranked ranked(const Lists& heads, const PolicySpec& structure, Protect protect = {}) {
  const auto count = static_cast<int>(heads.size());
  return ranked(HandLayer(count, count, static_cast<std::int64_t>(heads[0].size())), scorer_of(heads), structure,
                protect);
}

Set first_of(std::span<const std::uint32_t> order, std::size_t kept) {
  return {order.begin(), order.begin() + static_cast<std::ptrdiff_t>(kept)};
}

// Whatever of `order` isn't there yet, until `size` are.
void fill_up(Set& set, std::span<const std::uint32_t> order, std::size_t size) {
  for (const std::uint32_t j : order)
    if (set.size() < size) set.insert(j);
}

// set(k) = the best int(share * k) of the first and the best remaining ones of the rest, beyond the protected.
RC_GTEST_PROP(MergeStages, EqualsItsDefinition, ()) {
  const auto tokens = *rc::gen::inRange<std::size_t>(1, 14);
  const auto any = rc::gen::container<std::vector<int>>(tokens, rc::gen::inRange(0, 9));
  const std::vector<int> a = *any;
  const std::vector<int> b = *any;
  const Protect protect{*rc::gen::inRange<std::int64_t>(0, 4), *rc::gen::inRange<std::int64_t>(0, 4)};
  const double share = *rc::gen::element(0.0, 0.2, 0.25, 1.0 / 3, 0.5, 0.6, 0.75, 0.9, 1.0);
  const auto order = [&](const std::vector<int>& values) {
    Tensor scores(1, 1, static_cast<std::int64_t>(tokens));
    std::ranges::copy(values, scores.values().begin());
    return ops().rank(scores.view(), protect);
  };
  const Ranking first = order(a);
  const Ranking rest = order(b);
  const Ranking merged = merge_stages(first, rest, share, protect);
  const auto always = std::min(tokens, static_cast<std::size_t>(protect.first + protect.last));
  for (std::size_t k = 0; always + k <= tokens; ++k) {
    Set expected = first_of(first.head(0), always + static_cast<std::size_t>(share * static_cast<double>(k)));
    fill_up(expected, rest.head(0), always + k);
    RC_ASSERT(first_of(merged.head(0), always + k) == expected);
  }
}

// Sums over heads 0 and 1; means of chunks of two: 3, 5, and 4 for the last, which holds one token.
TEST(Chunk, RanksByTheMeanOfSumsAndTheLastPartialChunkCompetes) {
  const Ranked chunks = ranked(Lists{{1, 2, 4, 0, 3}, {1, 2, 0, 6, 1}}, {"chunk", {{"length", whole(2)}}, ""});
  for (int g = 0; g < 2; ++g) {
    EXPECT_THAT(chunks.scores.row(g, 0), ElementsAre(3, 3, 5, 5, 4));
    EXPECT_THAT(chunks.ranking.head(g), ElementsAre(2, 3, 4, 0, 1));
  }
}

TEST(Chunk, KeepsChunksTogether) {
  const Ranked chunks = ranked(random_rows(3, 47, 1), {"chunk", {{"length", whole(5)}}, ""});
  for (std::size_t kept = 0; kept <= 47; ++kept) {
    const Set set = first_of(chunks.ranking.head(0), kept);
    EXPECT_EQ(set, first_of(chunks.ranking.head(2), kept));
    int begun = 0;
    for (std::uint32_t begin = 0; begin < 47; begin += 5) {
      const std::uint32_t size = std::min(5U, 47 - begin);
      std::uint32_t there = 0;
      while (there < size && set.contains(begin + there)) ++there;  // from its first position on
      for (std::uint32_t j = there; j < size; ++j) EXPECT_FALSE(set.contains(begin + j)) << kept;
      begun += there > 0 && there < size ? 1 : 0;
    }
    EXPECT_LE(begun, 1) << kept;
  }
}

TEST(Chunk, AForcedEntryKeepsItsChunk) {
  const Ranked chunks =
      ranked(Lists{{1, 1, 2, 2, 0, kForced}, {1, 1, 2, 2, 0, kForced}}, {"chunk", {{"length", whole(2)}}, ""});
  EXPECT_THAT(chunks.ranking.head(0), ElementsAre(4, 5, 2, 3, 0, 1));
  for (const float score : chunks.scores.values()) EXPECT_TRUE(std::isfinite(score));
}

TEST(ChunkedPrefill, KeepsTheSameShareOfEachChunkUpToOneEntry) {
  HandLayer layer(2, 2, 46);
  layer.keys(random_rows(92, 2, 2));
  const Scorer knorm = builtin_policies().make_scorer({"knorm", {}, ""});
  const Ranked parts = ranked(layer, knorm, {"chunked_prefill", {{"length", whole(10)}}, ""});
  const std::vector<float> scores = layer.score("knorm");
  for (std::size_t kept = 0; kept <= 46; ++kept) {
    const Set set = first_of(parts.ranking.head(0), kept);
    std::vector<double> shares;
    for (std::uint32_t begin = 0; begin < 46; begin += 10) {
      const std::uint32_t end = std::min(46U, begin + 10);
      const std::vector<std::uint32_t> order =
          positions_by(std::span(scores).subspan(begin, end - begin));  // within the chunk
      std::size_t there = 0;
      for (const std::uint32_t j : order) there += set.contains(begin + j) ? 1 : 0;
      for (std::size_t r = 0; r < there; ++r) EXPECT_TRUE(set.contains(begin + order[r])) << "a chunk's best";
      // Whatever share s is kept of all, within half an entry of s (end - begin).
      for (std::uint32_t other = 0; other < shares.size(); ++other) {
        const double share = static_cast<double>(there) / (end - begin);
        EXPECT_LE(std::abs(share - shares[other]), 0.5 / 10 + 0.5 / (end - begin) + 1e-9) << kept;
      }
      shares.push_back(static_cast<double>(there) / (end - begin));
    }
  }
}

TEST(Shared, GivesAllHeadsTheSamePositions) {
  const Lists heads{{1, 5, 0, 3}, {4, 1, 0, 3}};
  const auto order = [&](const char* reduce) {
    const Ranked shared = ranked(heads, {"shared", {{"reduce", std::string(reduce)}}, ""});
    EXPECT_TRUE(std::ranges::equal(shared.ranking.head(0), shared.ranking.head(1)));
    return std::vector(shared.ranking.head(0).begin(), shared.ranking.head(0).end());
  };
  EXPECT_THAT(order("mean"), ElementsAre(1, 3, 0, 2));
  EXPECT_THAT(order("sum"), ElementsAre(1, 3, 0, 2));
  EXPECT_THAT(order("max"), ElementsAre(1, 0, 3, 2));
}

TEST(Shared, ForcedEntriesOfAnyHeadComeFirstAndStayFinite) {
  for (const char* reduce : {"mean", "sum", "max"}) {
    const Ranked shared =
        ranked(Lists{{1, 5, kForced, kForced}, {4, 1, 0, kForced}}, {"shared", {{"reduce", std::string(reduce)}}, ""});
    EXPECT_EQ(first_of(shared.ranking.head(0), 2), (Set{2, 3})) << reduce;
    for (const float score : shared.scores.values()) EXPECT_TRUE(std::isfinite(score)) << reduce;
  }
}

TEST(Shared, GivesAllHeadsTheSameFirstStage) {
  HandLayer layer(2, 2, 6);
  layer.column_sums({{1, 6, 2, 5, 0, 0}, {2, 4, 6, 1, 0, 0}});
  const Ranked shared = rank_by_hand(layer, {"h2o", {{"recent_ratio", 0.5}}, ""}, {"shared", {}, ""});
  EXPECT_THAT(shared.ranking.head(0), ElementsAre(1, 5, 2, 4, 3, 0));  // sums 3 10 8 6 0 0
  EXPECT_TRUE(std::ranges::equal(shared.ranking.head(0), shared.ranking.head(1)));
}

TEST(Threshold, OutcomeCountsWhatScoresEnoughOrIsRecent) {
  const Lists heads{{0.5F, 1, 2, -1, 0, 0}, {-1, -1, -1, 3, 0, 9}};
  const auto outcome = [&](double tau, std::int64_t window, Protect protect = {}) {
    return ranked(heads, {"threshold", {{"tau", tau}, {"window", whole(window)}}, ""}, protect).outcome;
  };
  EXPECT_THAT(outcome(1, 0), ElementsAre(2, 2));
  EXPECT_THAT(outcome(1, 2), ElementsAre(4, 3));
  EXPECT_THAT(outcome(1, 1, {2, 2}), ElementsAre(5, 5));
  EXPECT_THAT(outcome(1, 100), ElementsAre(6, 6));
  EXPECT_THAT(outcome(100, 0), ElementsAre(0, 0));
  const Ranked kept = ranked(heads, {"threshold", {{"tau", 1.0}, {"window", whole(2)}}, ""});
  EXPECT_EQ(first_of(kept.ranking.head(1), 3), (Set{3, 4, 5}));
}

// A scorer whose scores depend on who else is there: far from the mean of the keys.
Scorer far_from_mean() {
  Scorer scorer;
  scorer.needs = needs({Feature::keys});
  scorer.score = [](const LayerFeatures& layer, const Ops&) {
    Tensor scores(layer.shape.kv_heads, 1, layer.tokens);
    for (std::int64_t g = 0; g < scores.heads(); ++g) {
      double mean = 0;
      for (std::int64_t j = 0; j < layer.tokens; ++j) mean += static_cast<double>(layer.keys.row(g, j)[0]);
      mean /= static_cast<double>(layer.tokens);
      for (std::int64_t j = 0; j < layer.tokens; ++j)
        scores.row(g, 0)[static_cast<std::size_t>(j)] =
            static_cast<float>(std::abs(static_cast<double>(layer.keys.row(g, j)[0]) - mean));
    }
    return scores;
  };
  return scorer;
}

TEST(Block, EqualsAPlainLoop) {
  constexpr std::size_t kTokens = 23;
  HandLayer layer(4, 2, kTokens);
  const Lists keys = random_rows(2 * kTokens, 2, 3);
  layer.keys(keys);
  for (const Protect protect : {Protect{}, Protect{2, 3}}) {
    const KeptSet select = builtin_policies()
                               .make_structure({"block", {{"size", whole(4)}}, ""})
                               .select(layer.features_, far_from_mean(), protect, ops());
    for (std::size_t g = 0; g < 2; ++g) {
      for (std::size_t kept = 1; kept <= kTokens; ++kept) {
        std::vector<std::uint32_t> cache;
        for (std::uint32_t j = 0; j < kTokens; ++j) {
          cache.push_back(j);
          const bool full = j + 1 == kTokens || (j + 1 > kept && (j + 1 - kept) % 4 == 0);
          if (!full || cache.size() <= kept) continue;
          double mean = 0;
          for (const std::uint32_t at : cache)
            mean += static_cast<double>(keys[g * kTokens + at][0]) / static_cast<double>(cache.size());
          const auto worth = [&](std::uint32_t at) {
            const bool protected_one = at < protect.first || at + protect.last >= static_cast<std::int64_t>(kTokens);
            return protected_one ? 1e9 : std::abs(static_cast<double>(keys[g * kTokens + at][0]) - mean);
          };
          std::stable_sort(cache.begin(), cache.end(), [&](auto a, auto b) { return worth(a) > worth(b); });
          cache.resize(kept);
          std::sort(cache.begin(), cache.end());
        }
        EXPECT_THAT(select(static_cast<int>(g), static_cast<std::int64_t>(kept)), ElementsAreArray(cache)) << kept;
      }
      EXPECT_THAT(select(static_cast<int>(g), 0), testing::IsEmpty());
    }
  }
}

TEST(Critical, EqualsTheTwoStageSetForEveryBudget) {
  HandLayer layer(4, 2, 31);
  const Lists norms = random_norms(4, 31, 4);
  const Lists scores = random_norms(2, 31, 5);
  layer.output_norms(norms);
  for (const double share : {0.0, 0.5, 0.75, 1.0}) {
    const PolicySpec spec{"critical", {{"first_stage", share}, {"epsilon", 0.25}}, ""};
    const Ranked critical = ranked(layer, scorer_of(scores), spec, {2, 1});
    for (std::size_t g = 0; g < 2; ++g) {
      std::vector<double> refined;
      for (std::size_t j = 0; j < 31; ++j)
        refined.push_back((static_cast<double>(scores[g][j]) + 0.25) *
                          (static_cast<double>(norms[2 * g][j]) + static_cast<double>(norms[2 * g + 1][j])) / 2);
      const std::vector<std::uint32_t> by_score = positions_by(scores[g]);
      const std::vector<std::uint32_t> by_refined = positions_by(refined);
      for (std::size_t k = 0; k <= 28; ++k) {
        Set expected{0, 1, 30};
        // Protected ones are taken out of the first stage's order, not out of its count.
        std::size_t locked = static_cast<std::size_t>(share * static_cast<double>(k));
        for (const std::uint32_t j : by_score)
          if (locked > 0 && expected.insert(j).second) --locked;
        fill_up(expected, by_refined, 3 + k);
        EXPECT_EQ(first_of(critical.ranking.head(static_cast<std::int64_t>(g)), 3 + k), expected) << share << ' ' << k;
      }
    }
  }
}

TEST(EveryStructure, PutsTheProtectedInFront) {
  HandLayer layer(2, 2, 30);
  layer.keys(random_rows(60, 2, 6)).output_norms(random_norms(2, 30, 7));
  const Registry registry = builtin_policies();
  const Scorer knorm = registry.make_scorer({"knorm", {}, ""});
  for (const auto& entry : registry.structures()) {
    PolicySpec spec{entry.name, {}, ""};
    if (entry.name == "threshold") spec.params["window"] = whole(0);
    if (entry.name == "block") spec.params["size"] = whole(4);
    const Structure structure = registry.make_structure(spec);
    const Ranked order = structure.rank(layer.features_, knorm, {3, 4}, ops());
    for (int g = 0; g < 2; ++g) {
      EXPECT_THAT(order.ranking.head(g).first(7), ElementsAre(0, 1, 2, 26, 27, 28, 29)) << entry.name;
      if (!structure.select) continue;
      for (std::int64_t kept = 7; kept <= 30; ++kept)
        EXPECT_THAT(structure.select(layer.features_, knorm, {3, 4}, ops())(g, kept),
                    testing::IsSupersetOf({0, 1, 2, 26, 27, 28, 29}))
            << entry.name;
    }
  }
}

}  // namespace
}  // namespace depthkv
