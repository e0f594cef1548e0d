// SPDX-License-Identifier: Apache-2.0
// Masks that change while the plain transformer decodes: what its branches do with them is what an engine's have to.
#include "support/changing_masks.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "support/branch_logits.h"
#include "support/tiny_model.h"

namespace depthkv {
namespace {

constexpr std::int64_t kPrefix = 40;
constexpr std::int64_t kAdded = 12;

std::vector<Token> tokens_from(int first, std::int64_t count) {
  std::vector<Token> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back((first + i * 37) % 256);
  return tokens;
}

BranchLogits score(TinyModel& model, std::span<const Token> prefix, std::span<const KeepMask> masks,
                   std::span<const Token> tokens) {
  return score_branches(*model.branch(prefix, masks, kAdded), masks.size(), tokens);
}

class ChangingMasks : public testing::Test {
 protected:
  std::vector<Token> prefix_ = tokens_from(3, kPrefix);
  std::vector<Token> tokens_ = tokens_from(90, kAdded);
};

TEST_F(ChangingMasks, AMaskThatNeverChangesIsAFixedOne) {
  TinyModel model;
  const KeepMask fixed = frozen_at(selecting_mask(model.card()), kPrefix);
  KeepMask changing = KeepMask::everything(model.card());
  changing.hidden_at = [&](std::int64_t) { return fixed.pruned; };
  KeepMask both = fixed;
  both.hidden_at = changing.hidden_at;
  const std::vector<KeepMask> masks{fixed, changing, both, KeepMask::everything(model.card())};
  const BranchLogits logits = score(model, prefix_, masks, tokens_);
  EXPECT_EQ(logits[1], logits[0]);
  EXPECT_EQ(logits[2], logits[0]);
  EXPECT_NE(logits[3], logits[0]);
  const auto answers = model.branch(prefix_, masks, kAdded)->generate(tokens_, 8);
  EXPECT_EQ(answers[1], answers[0]);
  EXPECT_EQ(answers[2], answers[0]);
}

// In one layer keys and values depend on no mask, so that every step is the first one behind a longer prefix.
TEST_F(ChangingMasks, EachTokenSeesWhatItsOwnSetLeaves) {
  TinyModel model({.layers = 1});
  const std::vector<KeepMask> masks{streaming_mask(model.card(), 2, 6), selecting_mask(model.card())};
  const BranchLogits found = score(model, prefix_, masks, tokens_);
  std::vector<Token> before = prefix_;
  for (std::size_t step = 0; step < tokens_.size(); ++step) {
    for (std::size_t b = 0; b < masks.size(); ++b) {
      const KeepMask now = frozen_at(masks[b], static_cast<std::int64_t>(before.size()));
      EXPECT_EQ(score(model, before, {&now, 1}, std::span(tokens_).subspan(step, 1))[0][0], found[b][step]) << step;
    }
    before.push_back(tokens_[step]);
  }
  EXPECT_NE(found[0], found[1]);
}

// From `recent` steps on the prefix is out of sight but for its first positions.
TEST_F(ChangingMasks, StreamingForgetsThePrefix) {
  TinyModel model({.layers = 1});
  std::vector<Token> other = prefix_;
  std::fill(other.begin() + 2, other.end(), Token{7});
  const KeepMask mask = streaming_mask(model.card(), 2, 6);
  const BranchLogits one = score(model, prefix_, {&mask, 1}, tokens_);
  const BranchLogits two = score(model, other, {&mask, 1}, tokens_);
  for (std::size_t step = 0; step < tokens_.size(); ++step) EXPECT_EQ(one[0][step] == two[0][step], step >= 5) << step;
}

TEST_F(ChangingMasks, GenerateFollowsScore) {
  TinyModel model;
  const std::vector<KeepMask> masks{streaming_mask(model.card(), 2, 6), selecting_mask(model.card())};
  const auto answers = model.branch(prefix_, masks, 2 * kAdded)->generate(tokens_, kAdded);
  for (std::size_t b = 0; b < masks.size(); ++b) {
    std::vector<Token> fed = tokens_;
    fed.insert(fed.end(), answers[b].begin(), answers[b].end());
    const BranchLogits logits = score(model, prefix_, {&masks[b], 1}, fed);
    for (std::size_t i = 0; i < answers[b].size(); ++i) {
      const auto& row = logits[0][tokens_.size() - 1 + i];
      EXPECT_EQ(answers[b][i], std::ranges::max_element(row) - row.begin()) << b << ' ' << i;
    }
  }
}

}  // namespace
}  // namespace depthkv
