// SPDX-License-Identifier: Apache-2.0
#include "replay/separation.h"

#include <gtest/gtest.h>

#include <limits>

namespace depthkv {
namespace {

// KL of candidates on samples, [candidate][sample]; the first half of the candidates at one keep, the rest at another.
Verification of(const std::vector<std::vector<double>>& kl, std::size_t at_first_keep) {
  Verification verification;
  for (std::size_t c = 0; c < kl.size(); ++c) {
    Candidate candidate;
    candidate.keep_index = c < at_first_keep ? 0 : 1;
    verification.candidates.push_back(candidate);
    for (std::size_t s = 0; s < kl[c].size(); ++s) {
      VerifyRow row;
      row.candidate = c;
      row.sample = s;
      row.kl = kl[c][s];
      verification.rows.push_back(row);
    }
  }
  return verification;
}

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

TEST(Separation, NeedsEveryOfTheTopToBeatEveryOther) {
  const std::vector<double> base{1, 5, 2, 9, 3, 4};
  std::vector<double> better, worse, mixed;
  for (const double x : base) better.push_back(x - 0.5), worse.push_back(x + 0.5);
  mixed = base;
  mixed[0] += 0.4, mixed[1] -= 0.4;  // as good as base, differently
  EXPECT_TRUE(is_separate(of({base, better, worse}, 3), 1));
  EXPECT_TRUE(is_separate(of({base, better, worse}, 3), 2));
  EXPECT_TRUE(is_separate(of({base, better, mixed}, 3), 1));
  EXPECT_FALSE(is_separate(of({base, better, mixed}, 3), 2));
}

TEST(Separation, IsAskedForAtEveryKeep) {
  const std::vector<double> base{1, 5, 2, 9, 3, 4};
  std::vector<double> better;
  for (const double x : base) better.push_back(x - 0.5);
  EXPECT_TRUE(is_separate(of({base, better, better, base}, 2), 1));
  EXPECT_FALSE(is_separate(of({base, better, base, base}, 2), 1));
}

TEST(Separation, OfFewSamplesOrWithoutKlIsNone) {
  EXPECT_FALSE(is_separate(of({{0, 0, 0, 0}, {1, 1, 1, 1}}, 2), 1));
  EXPECT_TRUE(is_separate(of({{0, 0, 0, 0, 0}, {1, 1, 1, 1, 1}}, 2), 1));
  EXPECT_FALSE(is_separate(of({{0, 0, 0, 0, kNone}, {1, 1, 1, 1, kNone}}, 2), 1));
}

TEST(Separation, OfAllCandidatesFromNoneIsTrivial) { EXPECT_TRUE(is_separate(of({{1, 2}, {2, 1}}, 2), 2)); }

}  // namespace
}  // namespace depthkv
