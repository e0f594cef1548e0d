// SPDX-License-Identifier: Apache-2.0
// Error curves where little precision is left, and in any number of calls.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "kernels/cases.h"

namespace depthkv {
namespace {

// Where an entry that takes nearly all attention comes early, late or never, and values have much in common, squares of
// large numbers nearly cancel; what is left is right to within what matters beside the output.
TEST(AccumulateLosses, SinksAndCommonValuesCostLittlePrecision) {
  constexpr std::int64_t kTokens = 300;
  KernelInputs in({"", 1, 2, kTokens, 20, 40}, 7);
  for (std::int64_t j = 0; j < kTokens; ++j)
    for (float& x : in.values.row(0, j)) x += 20;
  for (std::int64_t h = 0; h < 2; ++h) {
    for (std::int64_t r = 0; r < 20; ++r) {
      for (float& a : in.attention.row(h, r)) a *= r % 3 == 0 ? 1.0F : 1e-3F;
      in.attention.row(h, r)[5] += r % 3 == 0 ? 0.0F : 0.999F;
    }
  }
  std::vector<std::uint32_t> ranking(kTokens - 20);
  std::iota(ranking.begin(), ranking.end(), 0U);
  for (const std::size_t sink : {0U, 1U, 70U, 130U, 279U}) {
    std::shuffle(ranking.begin(), ranking.end(), std::mt19937_64(sink));
    std::swap(ranking[sink], *std::ranges::find(ranking, 5U));
    const LossCurves a = losses(ops_for(Device::cpu), in.attention.view(), in.values.view(), ranking);
    const LossCurves b = losses(ops_for(Device::reference), in.attention.view(), in.values.view(), ranking);
    for (std::size_t k = 0; k < ranking.size(); ++k)
      ASSERT_NEAR(a.error[k], b.error[k], 1e-4 * b.error[k] + 1e-6 * b.energy) << sink << ' ' << k;
  }
}

RC_GTEST_PROP(AccumulateLossesProperty, CallsAddUp, ()) {
  const KernelCase c{"random",
                     1,
                     *rc::gen::inRange(1, 4),
                     *rc::gen::inRange<std::int64_t>(2, 90),
                     *rc::gen::inRange<std::int64_t>(1, 3),
                     *rc::gen::inRange<std::int64_t>(1, 40)};
  const KernelInputs in(c, *rc::gen::arbitrary<std::uint64_t>());
  std::vector<std::uint32_t> ranking(static_cast<std::size_t>(*rc::gen::inRange<std::int64_t>(1, c.tokens)));
  std::iota(ranking.begin(), ranking.end(), 0U);
  const LossCurves together = losses(ops_for(Device::cpu), in.attention.view(), in.values.view(), ranking);
  const LossCurves reference = losses(ops_for(Device::reference), in.attention.view(), in.values.view(), ranking);
  LossCurves apart(static_cast<std::int64_t>(ranking.size()));
  const std::span<const std::uint32_t> rankings[] = {ranking};
  for (std::int64_t r = 0; r < c.rows; ++r)
    ops_for(Device::cpu)
        .accumulate_losses({in.attention.view().row_range(r, 1), in.values.view(), rankings}, {&apart, 1});
  RC_ASSERT(together.rows == apart.rows);
  for (std::size_t k = 0; k < together.mass.size(); ++k) {
    RC_ASSERT(std::abs(together.mass[k] - apart.mass[k]) <= 1e-5 * static_cast<double>(1 + together.rows));
    RC_ASSERT(std::abs(together.error[k] - apart.error[k]) <= 2e-3 * (1e-3 + apart.error[k]));
    RC_ASSERT(std::abs(together.error[k] - reference.error[k]) <= 2e-3 * (1e-3 + reference.error[k]));
  }
}

}  // namespace
}  // namespace depthkv
