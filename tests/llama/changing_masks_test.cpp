// SPDX-License-Identifier: Apache-2.0
// Masks that change while the engine decodes. forward_test.cpp compares them with a forward pass in numpy.
#include "support/changing_masks.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "depthkv/error.h"
#include "llama/recorded.h"
#include "llama/tiny_gguf.h"
#include "support/scratch.h"

namespace depthkv {
namespace {

class ChangingBranches : public testing::TestWithParam<TinyGguf> {
 protected:
  void SetUp() override { open(GetParam()); }
  void open(const TinyGguf& tiny, int batch = 64) {
    model_.reset();  // which has the file mapped
    write_tiny_gguf(tiny, folder_ / "m.gguf");
    model_ = open_llama_model({.model = folder_ / "m.gguf", .threads = 2, .batch = batch});
    prefix_ = random_tokens(90, model_->card(), 21);
    tokens_ = random_tokens(11, model_->card(), 22);
  }
  KeepMask nothing() const { return KeepMask::everything(model_->card()); }
  KeepMask streaming() const { return streaming_mask(model_->card(), 3, 8); }
  KeepMask selecting() const { return selecting_mask(model_->card()); }
  KeepMask fixed() const { return frozen_at(selecting(), 90); }
  // As fixed(), but asked for before each token.
  KeepMask never_changing() const {
    KeepMask mask = nothing();
    mask.hidden_at = [sets = fixed().pruned](std::int64_t) { return sets; };
    return mask;
  }

  ScratchDirectory folder_;
  std::unique_ptr<Model> model_;
  std::vector<Token> prefix_;
  std::vector<Token> tokens_;
};

TEST_P(ChangingBranches, AMaskThatNeverChangesGivesTheBitsOfAFixedOne) {
  KeepMask both = fixed();
  both.hidden_at = never_changing().hidden_at;
  const std::vector<KeepMask> masks{fixed(), never_changing(), both, nothing()};
  const BranchLogits logits = score_branches(*model_->branch(prefix_, masks, 20), masks.size(), tokens_);
  EXPECT_EQ(logits[1], logits[0]);
  EXPECT_EQ(logits[2], logits[0]);
  EXPECT_NE(logits[3], logits[0]);
  const auto alone = model_->branch(prefix_, {&masks[0], 1}, 20)->generate(tokens_, 9);
  const auto answers = model_->branch(prefix_, masks, 20)->generate(tokens_, 9);
  EXPECT_EQ(answers[1], alone[0]);
  EXPECT_EQ(answers[2], alone[0]);
}

// In one layer keys and values depend on no mask, so that every step is the first one behind a longer prefix.
class ChangingBranchesOfOneLayer : public ChangingBranches {};
INSTANTIATE_TEST_SUITE_P(Architectures, ChangingBranchesOfOneLayer,
                         testing::Values(tiny_llama(), tiny_qwen2(), tiny_gemma(), tiny_qwen3()),
                         [](const auto& test) { return test.param.architecture; });

TEST_P(ChangingBranchesOfOneLayer, EachTokenSeesWhatItsOwnSetLeaves) {
  TinyGguf tiny = GetParam();
  tiny.layers = 1;
  open(tiny);
  const std::vector<KeepMask> masks{streaming(), nothing(), selecting()};
  const BranchLogits found = score_branches(*model_->branch(prefix_, masks, 20), masks.size(), tokens_);
  std::vector<Token> before = prefix_;
  for (std::size_t step = 0; step < tokens_.size(); ++step) {
    const auto position = static_cast<std::int64_t>(before.size());
    const std::vector<KeepMask> now{frozen_at(masks[0], position), masks[1], frozen_at(masks[2], position)};
    const BranchLogits expected =
        score_branches(*model_->branch(before, now, 1), now.size(), std::span(tokens_).subspan(step, 1));
    for (std::size_t b = 0; b < masks.size(); ++b)
      for (std::size_t t = 0; t < found[b][step].size(); ++t)
        ASSERT_NEAR(found[b][step][t], expected[b][0][t], 2e-3) << b << ' ' << step << ' ' << t;
    before.push_back(tokens_[step]);
  }
}

TEST_P(ChangingBranches, TokensFedOneByOneGiveTheSameScores) {
  const std::vector<KeepMask> masks{streaming(), selecting()};
  const BranchLogits together = score_branches(*model_->branch(prefix_, masks, 20), masks.size(), tokens_);
  open(GetParam(), 1);
  const BranchLogits alone = score_branches(*model_->branch(prefix_, masks, 20), masks.size(), tokens_);
  for (std::size_t b = 0; b < masks.size(); ++b)
    for (std::size_t step = 0; step < tokens_.size(); ++step)
      for (std::size_t t = 0; t < alone[b][step].size(); ++t)
        ASSERT_NEAR(alone[b][step][t], together[b][step][t], 2e-3) << b << ' ' << step << ' ' << t;
}

// Branches that change generate alone, between others that generate together.
TEST_P(ChangingBranches, GenerateFollowsScore) {
  const std::vector<KeepMask> masks{fixed(), nothing(), streaming(), selecting(), fixed(), nothing(), streaming()};
  const auto branches = model_->branch(prefix_, masks, 30);
  const auto answers = branches->generate(tokens_, 14);
  for (std::size_t b = 0; b < masks.size(); ++b) {
    std::vector<Token> fed = tokens_;
    fed.insert(fed.end(), answers[b].begin(), answers[b].end());
    const BranchLogits logits = score_branches(*branches, masks.size(), fed);
    for (std::size_t i = 0; i < answers[b].size(); ++i) {
      const auto& row = logits[b][tokens_.size() - 1 + i];
      EXPECT_EQ(answers[b][i], std::ranges::max_element(row) - row.begin()) << b << ' ' << i;
    }
  }
  EXPECT_EQ(answers[4], answers[0]);
  EXPECT_EQ(answers[5], answers[1]);
  EXPECT_EQ(answers[6], answers[2]);
  EXPECT_EQ(branches->generate(tokens_, 14), answers);
}

TEST_P(ChangingBranches, ATokenThatWouldNotSeeItselfIsRefused) {
  KeepMask mask = nothing();
  mask.hidden_at = [sets = mask.pruned](std::int64_t position) {
    EntrySets hidden = sets;
    hidden[0][0] = {static_cast<std::uint32_t>(position)};
    return hidden;
  };
  const auto branches = model_->branch(prefix_, {&mask, 1}, 20);
  EXPECT_THROW(branches->score(tokens_, 0, [](auto...) {}), Error);
  EXPECT_THROW(branches->generate(tokens_, 3), Error);
}

INSTANTIATE_TEST_SUITE_P(Architectures, ChangingBranches,
                         testing::Values(tiny_llama(), tiny_qwen2(), tiny_gemma(), tiny_gemma2()),
                         [](const auto& test) { return test.param.architecture; });

}  // namespace
}  // namespace depthkv
