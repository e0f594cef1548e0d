// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "depthkv/error.h"
#include "llama/recorded.h"
#include "llama/tiny_gguf.h"
#include "support/scratch.h"
#include "tracer/llama/model.h"

namespace depthkv {
namespace {

using StepLogits = std::vector<std::vector<std::vector<float>>>;  // [step][branch][token]
using PrefixRows = std::vector<std::vector<std::vector<float>>>;  // [query head][row][position of the prefix]

StepLogits score_all(Branches& branches, std::span<const Token> tokens, std::int64_t first_visited = 0) {
  StepLogits all;
  branches.score(tokens, first_visited, [&](std::size_t branch, std::int64_t step, std::span<const float> logits) {
    const auto index = static_cast<std::size_t>(step - first_visited);
    if (branch == 0) all.emplace_back();
    EXPECT_LT(index, all.size());
    EXPECT_EQ(all[index].size(), branch);
    all[index].emplace_back(logits.begin(), logits.end());
  });
  return all;
}

double kl(std::span<const float> p, std::span<const float> q) {
  const auto log_sum = [](std::span<const float> x) {
    const double top = *std::ranges::max_element(x);
    double sum = 0;
    for (const float v : x) sum += std::exp(v - top);
    return top + std::log(sum);
  };
  const double zp = log_sum(p);
  const double zq = log_sum(q);
  double sum = 0;
  for (std::size_t i = 0; i < p.size(); ++i) sum += std::exp(p[i] - zp) * ((p[i] - zp) - (q[i] - zq));
  return sum;
}

// The same sums in another order: batches of other sizes take other paths through the engine.
constexpr double kRounding = 1e-6;

// Per layer, the attention on the prefix of every row, one branch after the other.
struct Observed {
  std::vector<PrefixRows> layers;
  LayerSink sink(const ModelCard& card) {
    layers.resize(card.layers.size());
    return [this](const LayerBlock& block) {
      const auto rows = static_cast<std::size_t>(block.rows);
      const auto width = static_cast<std::size_t>(block.width);
      PrefixRows& out = layers.at(static_cast<std::size_t>(block.layer));
      out.resize(block.data.size() / (rows * width));
      for (std::size_t line = 0; line < out.size() * rows; ++line) {
        const auto data = block.data.subspan(line * width, width);
        out[line / rows].emplace_back(data.begin(), data.end());
      }
    };
  }
};

class TinyBranches : public testing::TestWithParam<TinyGguf> {
 protected:
  void SetUp() override {
    write_tiny_gguf(GetParam(), folder_ / "m.gguf");
    open(64);
  }
  void open(int batch) {
    model_ = std::make_unique<LlamaModel>(LlamaOptions{.model = folder_ / "m.gguf", .threads = 2, .batch = batch});
    prefix_ = random_tokens(90, model_->card(), 21);
    tokens_ = random_tokens(11, model_->card(), 22);
  }
  KeepMask nothing() const { return KeepMask::everything(model_->card()); }
  // Prunes two thirds of all heads of the layers from `first` on.
  KeepMask heavy(std::size_t first = 0) const {
    KeepMask mask = nothing();
    for (std::size_t layer = first; layer < mask.pruned.size(); ++layer)
      for (std::size_t head = 0; head < mask.pruned[layer].size(); ++head)
        for (std::uint32_t p = 0; p < prefix_.size(); ++p)
          if ((p + head + layer) % 3 != 0) mask.pruned[layer][head].push_back(p);
    return mask;
  }

  ScratchDirectory folder_;
  std::unique_ptr<LlamaModel> model_;
  std::vector<Token> prefix_;
  std::vector<Token> tokens_;
};

TEST_P(TinyBranches, AMaskHidesItsEntriesFromItsHeadAndBranchOnly) {
  constexpr std::size_t kLayer = 1;
  const std::size_t pruned_head = model_->card().layers[kLayer].kv_heads > 1 ? 1 : 0;
  const std::set<std::uint32_t> pruned{0, 1, 2, 7, 30, 31, 88, 89};
  KeepMask mask = nothing();
  mask.pruned[kLayer][pruned_head].assign(pruned.begin(), pruned.end());

  Observed plain;
  Observed masked;
  const std::vector<KeepMask> none{nothing(), nothing()};
  const std::vector<KeepMask> second{nothing(), mask};
  const StepLogits plain_logits =
      score_all(*model_->branch_observed(prefix_, none, 20, plain.sink(model_->card())), tokens_);
  const StepLogits masked_logits =
      score_all(*model_->branch_observed(prefix_, second, 20, masked.sink(model_->card())), tokens_);

  const auto group = static_cast<std::size_t>(model_->card().layers[kLayer].group());
  bool changed = false;
  for (std::size_t layer = 0; layer <= kLayer; ++layer) {
    for (std::size_t head = 0; head < plain.layers[layer].size(); ++head) {
      for (std::size_t row = 0; row < 2 * tokens_.size(); ++row) {
        const auto& before = plain.layers[layer][head][row];
        const auto& after = masked.layers[layer][head][row];
        if (layer < kLayer || head / group != pruned_head || row < tokens_.size()) {
          ASSERT_EQ(after, before) << layer << ' ' << head << ' ' << row;
          continue;
        }
        double lost = 0;
        for (const std::uint32_t p : pruned) lost += before[p];
        changed = changed || lost > 0.01;
        for (std::uint32_t p = 0; p < prefix_.size(); ++p)
          ASSERT_NEAR(after[p], pruned.contains(p) ? 0.0 : before[p] / (1 - lost), 2e-5)
              << head << ' ' << row << ' ' << p;
      }
    }
  }
  EXPECT_TRUE(changed) << "the pruned entries had no attention, nothing was tested";
  for (std::size_t step = 0; step < tokens_.size(); ++step) {
    EXPECT_EQ(masked_logits[step][0], plain_logits[step][0]);
    EXPECT_NE(masked_logits[step][1], plain_logits[step][1]);
  }
}

TEST_P(TinyBranches, WithoutPruningLogitsAreThoseOfAPlainRun) {
  const std::vector<KeepMask> masks(3, nothing());
  const StepLogits branched = score_all(*model_->branch(prefix_, masks, 20), tokens_);
  // A plain run: prefix and tokens as one sequence, one step at a time.
  std::vector<Token> whole = prefix_;
  for (std::size_t step = 0; step < tokens_.size(); ++step) {
    const StepLogits plain =
        score_all(*model_->branch(whole, std::vector<KeepMask>{nothing()}, 1), std::span(tokens_).subspan(step, 1));
    whole.push_back(tokens_[step]);
    for (std::size_t b = 0; b < masks.size(); ++b) {
      EXPECT_LT(std::abs(kl(plain[0][0], branched[step][b])), kRounding) << step;
      for (std::size_t t = 0; t < branched[step][b].size(); ++t)
        EXPECT_NEAR(branched[step][b][t], plain[0][0][t], 2e-3) << step << ' ' << b << ' ' << t;
    }
  }
}

TEST_P(TinyBranches, BranchesWithTheSameMaskAgreeAndDoNotSeeEachOther) {
  const std::vector<KeepMask> masks{heavy(), nothing(), heavy(), heavy(1)};
  const StepLogits together = score_all(*model_->branch(prefix_, masks, 20), tokens_);
  for (const auto& step : together) {
    EXPECT_EQ(step[0], step[2]);  // the same cells, so the same bits
    EXPECT_GT(kl(step[1], step[0]), 100 * kRounding);
    EXPECT_GT(kl(step[3], step[0]), 100 * kRounding);
  }
  for (std::size_t b = 0; b < masks.size(); ++b) {
    const StepLogits alone = score_all(*model_->branch(prefix_, {&masks[b], 1}, 20), tokens_);
    for (std::size_t step = 0; step < alone.size(); ++step)
      EXPECT_LT(std::abs(kl(alone[step][0], together[step][b])), kRounding);
  }
}

TEST_P(TinyBranches, SmallBatchesGiveTheSameScoresAsLargeOnes) {
  const std::vector<KeepMask> masks{heavy(), nothing(), heavy(1)};
  const StepLogits large = score_all(*model_->branch(prefix_, masks, 20), tokens_);
  for (const int batch : {1, 7}) {  // fewer rows than branches; not a multiple of them
    open(batch);
    const StepLogits small = score_all(*model_->branch(prefix_, masks, 20), tokens_);
    ASSERT_EQ(small.size(), large.size());
    for (std::size_t step = 0; step < large.size(); ++step)
      for (std::size_t b = 0; b < masks.size(); ++b) EXPECT_LT(std::abs(kl(large[step][b], small[step][b])), kRounding);
  }
}

TEST_P(TinyBranches, AreBackAtThePrefixAfterEveryCall) {
  const std::vector<KeepMask> masks{heavy(), nothing()};
  const auto branches = model_->branch(prefix_, masks, 20);
  const StepLogits first = score_all(*branches, tokens_);
  const auto answers = branches->generate(tokens_, 9);
  EXPECT_THROW(branches->score(tokens_, 0, [](auto...) { throw Error("enough"); }), Error);
  EXPECT_EQ(score_all(*branches, tokens_), first);
  EXPECT_EQ(branches->generate(tokens_, 9), answers);
}

TEST_P(TinyBranches, OnlyStepsFromTheFirstVisitedAreVisited) {
  const std::vector<KeepMask> masks{nothing(), heavy()};
  const auto branches = model_->branch(prefix_, masks, 20);
  const StepLogits all = score_all(*branches, tokens_);
  const StepLogits tail = score_all(*branches, tokens_, 8);
  ASSERT_EQ(all.size(), 11U);
  ASSERT_EQ(tail.size(), 3U);
  for (std::size_t i = 0; i < tail.size(); ++i) EXPECT_LT(std::abs(kl(all[8 + i][1], tail[i][1])), kRounding);
  EXPECT_TRUE(score_all(*branches, tokens_, 11).empty());
  EXPECT_TRUE(score_all(*branches, {}).empty());
}

TEST_P(TinyBranches, GenerateWithoutPruningIsWhatRecordGenerates) {
  std::vector<Token> prompt = prefix_;
  prompt.insert(prompt.end(), tokens_.begin(), tokens_.end());
  const Recorded recorded = record_all(*model_, prompt, {}, 14, {});
  const std::vector<KeepMask> masks(2, nothing());
  const auto answers = model_->branch(prefix_, masks, 30)->generate(tokens_, 14);
  EXPECT_EQ(answers, std::vector<std::vector<Token>>(2, recorded.answer));
  EXPECT_EQ(model_->branch(prompt, masks, 30)->generate({}, 14), answers);  // nothing to lead with
  EXPECT_EQ(model_->branch(prompt, masks, 30)->generate({}, 0), std::vector<std::vector<Token>>(2));
}

TEST_P(TinyBranches, GenerateFollowsScore) {
  const std::vector<KeepMask> masks{heavy(), nothing(), heavy(1)};
  const auto branches = model_->branch(prefix_, masks, 20);
  const auto answers = branches->generate(tokens_, 8);
  for (std::size_t b = 0; b < masks.size(); ++b) {
    std::vector<Token> fed = tokens_;
    fed.insert(fed.end(), answers[b].begin(), answers[b].end());
    const StepLogits logits = score_all(*branches, fed, static_cast<std::int64_t>(tokens_.size()) - 1);
    for (std::size_t i = 0; i < answers[b].size(); ++i) {
      const auto& row = logits[i][b];
      EXPECT_EQ(answers[b][i], std::ranges::max_element(row) - row.begin()) << b << ' ' << i;
    }
  }
}

// More than decode at once.
TEST_P(TinyBranches, AnyNumberOfBranchesSharesAPrefix) {
  const std::vector<KeepMask> kinds{heavy(), nothing(), heavy(1)};
  std::vector<KeepMask> masks;
  for (std::size_t b = 0; b < 70; ++b) masks.push_back(kinds[b % 3]);
  ASSERT_LT(branch_room(model_->card(), 90, masks.size(), 20, machine_memory()).together, 36);
  const auto branches = model_->branch(prefix_, masks, 20);
  const auto expected = model_->branch(prefix_, kinds, 20)->generate(tokens_, 6);
  const auto answers = branches->generate(tokens_, 6);
  const StepLogits logits = score_all(*branches, tokens_);
  for (std::size_t b = 0; b < masks.size(); ++b) {
    EXPECT_EQ(answers[b], expected[b % 3]) << b;
    for (const auto& step : logits) EXPECT_EQ(step[b], step[b % 3]) << b;
  }
}

TEST_P(TinyBranches, PruningThePrefixAltogetherLeavesTheAddedTokens) {
  KeepMask mask = nothing();
  for (auto& layer : mask.pruned)
    for (auto& head : layer)
      for (std::uint32_t p = 0; p < prefix_.size(); ++p) head.push_back(p);
  const std::vector<KeepMask> masks{mask};
  for (const auto& step : score_all(*model_->branch(prefix_, masks, 20), tokens_))
    for (const float logit : step[0]) ASSERT_TRUE(std::isfinite(logit));
}

INSTANTIATE_TEST_SUITE_P(Architectures, TinyBranches,
                         testing::Values(tiny_llama(), tiny_qwen2(), tiny_gemma(), tiny_gemma2()),
                         [](const auto& test) { return test.param.architecture; });

// Attention of layer 0 on random prefixes, batches and masks, against the unmasked rows without the pruned entries.
RC_GTEST_PROP(BranchesProperty, MaskedRowsAreTheUnmaskedOnesRenormalised, ()) {
  const ScratchDirectory folder;
  write_tiny_gguf({.layers = 1, .query_heads = 6, .kv_heads = 3, .head_dim = 8, .embedding = 48}, folder / "m.gguf");
  LlamaModel model({.model = folder / "m.gguf", .threads = 1, .batch = *rc::gen::inRange(1, 40)});
  const auto prefix =
      random_tokens(*rc::gen::inRange<std::size_t>(1, 60), model.card(), *rc::gen::arbitrary<std::uint32_t>());
  const auto tokens =
      random_tokens(*rc::gen::inRange<std::size_t>(1, 9), model.card(), *rc::gen::arbitrary<std::uint32_t>());
  std::vector<KeepMask> masks(*rc::gen::inRange<std::size_t>(1, 5), KeepMask::everything(model.card()));
  const std::vector<KeepMask> none = masks;
  for (KeepMask& mask : masks)
    for (auto& head : mask.pruned[0])
      for (std::uint32_t p = 0; p < prefix.size(); ++p)
        if (*rc::gen::arbitrary<bool>()) head.push_back(p);
  Observed plain;
  Observed masked;
  score_all(*model.branch_observed(prefix, none, 9, plain.sink(model.card())), tokens);
  score_all(*model.branch_observed(prefix, masks, 9, masked.sink(model.card())), tokens);
  for (std::size_t head = 0; head < 6; ++head) {
    for (std::size_t row = 0; row < plain.layers[0][head].size(); ++row) {
      const auto& before = plain.layers[0][head][row];
      const auto& pruned = masks[row / tokens.size()].pruned[0][head / 2];
      double lost = 0;
      for (const std::uint32_t p : pruned) lost += before[p];
      for (std::uint32_t p = 0; p < prefix.size(); ++p) {
        const bool gone = std::ranges::binary_search(pruned, p);
        const double expected = gone ? 0.0 : before[p] / (1 - lost);
        RC_ASSERT(std::abs(masked.layers[0][head][row][p] - expected) <= 1e-5 + 1e-6 / (1 - lost));
      }
    }
  }
}

TEST(BranchesRealModel, PruningNothingCostsNothingAndPruningMuchDoes) {
  const auto model = open_real_model(128);
  const auto prompt = model->tokenize(ask(*model, "List the first ten prime numbers."), true, true);
  const Recorded recorded = record_all(*model, prompt, {}, 24, {});
  KeepMask mask = KeepMask::everything(model->card());
  for (auto& layer : mask.pruned)
    for (auto& head : layer)
      for (std::uint32_t p = 1; p < prompt.size(); p += 2) head.push_back(p);
  const std::vector<KeepMask> masks{KeepMask::everything(model->card()), mask, KeepMask::everything(model->card())};
  const auto branches = model->branch(prompt, masks, 40);
  const StepLogits logits = score_all(*branches, recorded.answer);
  double cost = 0;
  for (const auto& step : logits) {
    EXPECT_EQ(step[0], step[2]);
    cost += kl(step[0], step[1]);
  }
  EXPECT_GT(cost / static_cast<double>(logits.size()), 0.01);
  auto expected = recorded.answer;
  if (expected.size() < 24) expected.pop_back();  // the end token
  EXPECT_EQ(branches->generate({}, 24)[0], expected);
}

}  // namespace
}  // namespace depthkv
