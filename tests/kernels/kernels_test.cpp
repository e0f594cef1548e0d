// SPDX-License-Identifier: Apache-2.0
// Every op against its reference over one list of cases, and the promises of its contract.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "depthkv/error.h"
#include "kernels/cases.h"

namespace depthkv {
namespace {

const Ops& slow() { return ops_for(Device::reference); }
const Ops& fast() { return ops_for(Device::cpu); }

// Fails on NaN, too.
void expect_near(std::span<const float> a, std::span<const float> b, double absolute, double relative) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    ASSERT_TRUE(difference <= absolute + relative * std::abs(static_cast<double>(b[i])))
        << i << ": " << a[i] << ' ' << b[i];
  }
}

class KernelTest : public testing::TestWithParam<KernelCase> {
 protected:
  KernelInputs in_{GetParam(), 7};
};
INSTANTIATE_TEST_SUITE_P(Cases, KernelTest, testing::ValuesIn(kTestCases),
                         [](const auto& test) { return test.param.name; });

TEST_P(KernelTest, AttentionRows) {
  for (const SoftmaxSpec spec : {SoftmaxSpec{}, SoftmaxSpec{0.125, 0}, SoftmaxSpec{2.0, 5.0}, SoftmaxSpec{.window = 1},
                                 SoftmaxSpec{.window = 7}}) {
    const Tensor a = fast().attention_rows(in_.queries.view(), in_.keys.view(), in_.positions, spec);
    const Tensor b = slow().attention_rows(in_.queries.view(), in_.keys.view(), in_.positions, spec);
    expect_near(a.values(), b.values(), 1e-6, 1e-4);  // float exponentials of logits up to 2 d
    for (std::int64_t h = 0; h < a.heads(); ++h) {
      for (std::int64_t r = 0; r < a.rows(); ++r) {
        const auto row = a.row(h, r);
        EXPECT_NEAR(std::accumulate(row.begin(), row.end(), 0.0), 1.0, 1e-5);
        const auto seen = static_cast<std::size_t>(in_.positions[static_cast<std::size_t>(r)]) + 1;
        for (std::size_t j = seen; j < row.size(); ++j) EXPECT_EQ(row[j], 0.0F);
        const auto window = static_cast<std::size_t>(spec.window);
        for (std::size_t j = 0; window > 0 && j + window < seen; ++j) EXPECT_EQ(row[j], 0.0F);
      }
    }
  }
}

TEST_P(KernelTest, AttentionRowsDoNotDependOnTheirNeighbours) {
  const Tensor all = fast().attention_rows(in_.queries.view(), in_.keys.view(), in_.positions, {});
  for (std::int64_t r = 0; r < all.rows(); ++r) {
    const std::vector<std::int32_t> position{in_.positions[static_cast<std::size_t>(r)]};
    const Tensor one = fast().attention_rows(in_.queries.view().row_range(r, 1), in_.keys.view(), position, {});
    for (std::int64_t h = 0; h < all.heads(); ++h)
      EXPECT_TRUE(std::ranges::equal(one.row(h, 0), all.row(h, r))) << h << ' ' << r;
  }
}

TEST_P(KernelTest, AttentionSums) {
  const auto size = static_cast<std::size_t>(in_.queries.heads() * in_.keys.rows());
  const std::int64_t first = in_.keys.rows() - in_.queries.rows();
  for (const SoftmaxSpec spec : {SoftmaxSpec{}, SoftmaxSpec{2.0, 5.0}, SoftmaxSpec{.window = 7}}) {
    std::vector<double> a(size, 1.0);
    std::vector<double> b(size, 1.0);
    fast().attention_sums(in_.queries.view(), in_.halves(), first, spec, a);
    slow().attention_sums(in_.queries.view(), in_.halves(), first, spec, b);
    const Tensor rows = slow().attention_rows(in_.queries.view(), in_.keys.view(), in_.positions, spec);
    const Tensor sums = slow().column_sums(rows.view());
    for (std::size_t i = 0; i < size; ++i) {
      ASSERT_NEAR(b[i], 1.0 + static_cast<double>(sums.values()[i]), 1e-5) << i;
      ASSERT_NEAR(a[i], b[i], 1e-5 * b[i]) << i;
    }
  }
}

// Later keys than the last row's own are not seen, but may be there.
TEST_P(KernelTest, AttentionSumsOfABlockInTheMiddle) {
  const std::int64_t tokens = in_.keys.rows();
  const std::int64_t rows = std::min(in_.queries.rows(), tokens / 2);
  std::vector<double> sums(static_cast<std::size_t>(in_.queries.heads() * tokens));
  fast().attention_sums(in_.queries.view().row_range(0, rows), in_.halves(), 0, {}, sums);
  for (std::int64_t h = 0; h < in_.queries.heads(); ++h) {
    const auto head = std::span(sums).subspan(static_cast<std::size_t>(h * tokens), static_cast<std::size_t>(tokens));
    EXPECT_NEAR(std::accumulate(head.begin(), head.end(), 0.0), static_cast<double>(rows), 1e-4);
    for (std::int64_t j = rows; j < tokens; ++j) ASSERT_EQ(head[static_cast<std::size_t>(j)], 0.0);
  }
}

// Weights differ by row, some rows count for nothing, and what is there already stays where it is larger.
TEST_P(KernelTest, AttentionMaxima) {
  const auto size = static_cast<std::size_t>(in_.queries.heads() * in_.keys.rows());
  const auto rows = static_cast<std::size_t>(in_.queries.rows());
  const std::int64_t first = in_.keys.rows() - in_.queries.rows();
  std::vector<float> weights;
  for (std::size_t r = 0; r < 2 * rows; ++r) weights.push_back(r < rows ? 1.0F : static_cast<float>(r % 3) * 0.75F);
  for (const SoftmaxSpec spec : {SoftmaxSpec{}, SoftmaxSpec{2.0, 5.0}, SoftmaxSpec{.window = 7}}) {
    std::vector<float> a(2 * size, 0.02F);
    std::vector<float> b = a;
    fast().attention_maxima(in_.queries.view(), in_.halves(), first, spec, weights, a);
    slow().attention_maxima(in_.queries.view(), in_.halves(), first, spec, weights, b);
    expect_near(a, b, 1e-6, 1e-4);
    const Tensor all = fast().attention_rows(in_.queries.view(), in_.keys.view(), in_.positions, spec);
    for (std::size_t w = 0; w < 2; ++w) {
      for (std::int64_t h = 0; h < all.heads(); ++h) {
        std::vector<float> most(static_cast<std::size_t>(all.columns()), 0.02F);
        for (std::size_t r = 0; r < rows; ++r)
          for (std::size_t j = 0; j < most.size(); ++j)
            most[j] = std::max(most[j], all.row(h, static_cast<std::int64_t>(r))[j] * weights[w * rows + r]);
        const auto found = a.begin() + static_cast<std::ptrdiff_t>(w * size) + h * all.columns();
        EXPECT_TRUE(std::equal(most.begin(), most.end(), found)) << "the bits of attention_rows";
      }
    }
  }
}

TEST_P(KernelTest, AttentionMaximaDoNotDependOnTheGroupingOfRows) {
  const std::int64_t first = in_.keys.rows() - in_.queries.rows();
  const std::vector<float> weights(static_cast<std::size_t>(in_.queries.rows()), 0.5F);
  std::vector<float> whole(static_cast<std::size_t>(in_.queries.heads() * in_.keys.rows()));
  std::vector<float> parts = whole;
  fast().attention_maxima(in_.queries.view(), in_.halves(), first, {}, weights, whole);
  for (std::int64_t r = in_.queries.rows() - 1; r >= 0; --r)
    fast().attention_maxima(in_.queries.view().row_range(r, 1), in_.halves(), first + r, {},
                            std::span(weights).first(1), parts);
  EXPECT_EQ(parts, whole);
}

TEST(AttentionMaxima, NaNSpreadsOverTheKeysThatItsRowSees) {
  KernelInputs in({"", 1, 1, 40, 9, 8}, 3);
  in.queries.row(0, 4)[2] = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> weights(9, 1.0F);
  for (const Ops* ops : {&fast(), &slow()}) {
    std::vector<float> maxima(40);
    ops->attention_maxima(in.queries.view(), in.halves(), 31, {.window = 20}, weights, maxima);
    for (std::size_t j = 0; j < maxima.size(); ++j) EXPECT_EQ(std::isnan(maxima[j]), j >= 16 && j <= 35) << j;
  }
}

TEST_P(KernelTest, ColumnSumsAreTheSameBits) {
  const Tensor a = fast().column_sums(in_.attention.view());
  const Tensor b = slow().column_sums(in_.attention.view());
  EXPECT_TRUE(std::ranges::equal(a.values(), b.values()));
  EXPECT_EQ(a.heads(), in_.attention.heads());
  EXPECT_EQ(a.columns(), in_.attention.columns());
}

TEST_P(KernelTest, RowNorms) {
  for (const Norm norm : {Norm::l1, Norm::l2})
    expect_near(fast().row_norms(in_.keys.view(), norm).values(), slow().row_norms(in_.keys.view(), norm).values(), 0,
                1e-7);
}

TEST_P(KernelTest, ProjectedNorms) {
  const Tensor a = fast().projected_norms(in_.values.view(), in_.weights.view());
  const Tensor b = slow().projected_norms(in_.values.view(), in_.weights.view());
  EXPECT_EQ(a.heads(), in_.weights.heads());
  EXPECT_EQ(a.rows(), GetParam().tokens);
  expect_near(a.values(), b.values(), 1e-6, 1e-4);  // float products of up to 80 terms
}

TEST_P(KernelTest, AccumulateLosses) {
  const KernelCase& c = GetParam();
  const std::int64_t tokens = c.tokens - c.tokens / 4;  // the rest can't be pruned
  std::vector<std::uint32_t> ranking(static_cast<std::size_t>(tokens));
  std::iota(ranking.begin(), ranking.end(), 0U);
  std::shuffle(ranking.begin(), ranking.end(), std::mt19937_64(3));
  for (int g = 0; g < c.kv_heads; ++g) {
    const View attention = in_.attention.view().head_range(g * c.group, c.group);
    const LossCurves a = losses(fast(), attention, in_.values.view().head_range(g, 1), ranking);
    const LossCurves b = losses(slow(), attention, in_.values.view().head_range(g, 1), ranking);
    ASSERT_EQ(a.rows, b.rows);
    EXPECT_EQ(a.rows, c.group * c.rows);
    EXPECT_NEAR(a.energy, b.energy, 1e-5 * (1 + b.energy));
    for (std::size_t k = 0; k < a.mass.size(); ++k) {
      ASSERT_NEAR(a.mass[k], b.mass[k], 1e-5 * static_cast<double>(1 + a.rows)) << k;
      // Where next to no mass is kept, o' is a quotient of two small numbers.
      ASSERT_NEAR(a.error[k], b.error[k], 2e-3 * (1e-3 + b.error[k])) << k;
      ASSERT_GE(a.mass[k], a.mass[k > 0 ? k - 1 : 0] - 1e-6 * static_cast<double>(a.rows));
    }
    EXPECT_EQ(a.mass.back(), static_cast<double>(a.rows));
    EXPECT_EQ(a.error.back(), 0.0);
  }
}

TEST_P(KernelTest, RankingsTogetherAreRankingsOneByOne) {
  const KernelCase& c = GetParam();
  std::vector<std::vector<std::uint32_t>> orders(3, std::vector<std::uint32_t>(static_cast<std::size_t>(c.tokens)));
  std::mt19937_64 random(9);
  for (auto& order : orders) {
    std::iota(order.begin(), order.end(), 0U);
    std::shuffle(order.begin(), order.end(), random);
  }
  const std::vector<std::span<const std::uint32_t>> rankings(orders.begin(), orders.end());
  const View attention = in_.attention.view().head_range(0, c.group);
  const View values = in_.values.view().head_range(0, 1);
  for (const Ops* ops : {&slow(), &fast()}) {
    std::vector<LossCurves> together(orders.size(), LossCurves(c.tokens));
    ops->accumulate_losses({attention, values, rankings}, together);
    for (std::size_t i = 0; i < orders.size(); ++i) {
      const LossCurves alone = losses(*ops, attention, values, orders[i]);
      EXPECT_EQ(together[i].mass, alone.mass);
      EXPECT_EQ(together[i].error, alone.error);
      EXPECT_EQ(together[i].energy, alone.energy);
      EXPECT_EQ(together[i].rows, alone.rows);
    }
  }
}

// The curve at k is what removing the other entries and renormalising gives.
TEST_P(KernelTest, LossesAreThoseOfTheSetItself) {
  const KernelCase& c = GetParam();
  std::vector<std::uint32_t> ranking(static_cast<std::size_t>(c.tokens));
  std::iota(ranking.rbegin(), ranking.rend(), 0U);
  const LossCurves curves =
      losses(fast(), in_.attention.view().head_range(0, c.group), in_.values.view().head_range(0, 1), ranking);
  for (const std::size_t k : {ranking.size() / 3, ranking.size() / 2, ranking.size()}) {
    double mass = 0;
    double error = 0;
    for (int h = 0; h < c.group; ++h) {
      for (std::int64_t r = 0; r < c.rows; ++r) {
        const auto row = in_.attention.row(h, r);
        double kept = 0;
        std::vector<double> full(static_cast<std::size_t>(c.columns));
        std::vector<double> pruned(full.size());
        for (std::size_t rank = 0; rank < ranking.size(); ++rank) {
          const double a = static_cast<double>(row[ranking[rank]]);
          if (rank < k) kept += a;
          for (std::size_t d = 0; d < full.size(); ++d) {
            const double part = a * static_cast<double>(in_.values.row(0, ranking[rank])[d]);
            full[d] += part;
            if (rank < k) pruned[d] += part;
          }
        }
        mass += kept;
        for (std::size_t d = 0; d < full.size(); ++d) {
          const double kept_output = kept > kNoMass ? pruned[d] / kept : 0;
          error += (kept_output - full[d]) * (kept_output - full[d]);
        }
      }
    }
    EXPECT_NEAR(curves.mass[k], mass, 1e-5 * (1 + mass));
    EXPECT_NEAR(curves.error[k], error, 2e-3 * (1e-3 + error));
  }
}

TEST_P(KernelTest, SetLosses) {
  const KernelCase& c = GetParam();
  const std::int64_t tokens = c.tokens - c.tokens / 4;
  std::vector<std::uint32_t> ranking(static_cast<std::size_t>(tokens));
  std::iota(ranking.begin(), ranking.end(), 0U);
  std::shuffle(ranking.begin(), ranking.end(), std::mt19937_64(5));
  for (int g = 0; g < c.kv_heads; ++g) {
    const View attention = in_.attention.view().head_range(g * c.group, c.group);
    const View values = in_.values.view().head_range(g, 1);
    const LossCurves curves = losses(slow(), attention, values, ranking);
    for (std::size_t k : {std::size_t{0}, std::size_t{1}, ranking.size() / 3, ranking.size() / 2, ranking.size()}) {
      k = std::min(k, ranking.size());
      std::vector<std::uint32_t> kept(ranking.begin(), ranking.begin() + static_cast<std::ptrdiff_t>(k));
      std::sort(kept.begin(), kept.end());
      const SetLosses a = fast().set_losses({attention, values, kept, tokens});
      const SetLosses b = slow().set_losses({attention, values, kept, tokens});
      ASSERT_EQ(a.rows, b.rows);
      EXPECT_EQ(a.rows, c.group * c.rows);
      EXPECT_NEAR(a.energy, b.energy, 1e-5 * (1 + b.energy));
      EXPECT_NEAR(a.mass, b.mass, 1e-5 * static_cast<double>(1 + a.rows)) << k;
      EXPECT_NEAR(a.error, b.error, 2e-3 * (1e-3 + b.error)) << k;
      EXPECT_NEAR(b.mass, curves.mass[k], 1e-5 * static_cast<double>(1 + a.rows)) << k;
      EXPECT_NEAR(b.error, curves.error[k], 2e-3 * (1e-3 + b.error)) << k;
    }
    EXPECT_EQ(fast().set_losses({attention, values, ranking, tokens}).mass, static_cast<double>(c.group * c.rows));
    EXPECT_EQ(fast().set_losses({attention, values, ranking, tokens}).error, 0.0);
  }
}

TEST(KernelEdges, NanIsNeverSwallowed) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const Ops* ops : {&slow(), &fast()}) {
    KernelInputs in({"nan", 1, 2, 16, 4, 8}, 1);
    in.queries.row(1, 2)[3] = nan;
    const Tensor rows = ops->attention_rows(in.queries.view(), in.keys.view(), in.positions, {});
    EXPECT_TRUE(std::isnan(rows.row(1, 2)[0]));
    EXPECT_FALSE(std::isnan(rows.row(1, 1)[0]));
    EXPECT_FALSE(std::isnan(rows.row(0, 2)[0]));
    EXPECT_TRUE(std::isnan(ops->column_sums(rows.view()).row(1, 0)[0]));
    in.keys.row(0, 5)[7] = nan;
    for (const Norm norm : {Norm::l1, Norm::l2}) {
      const Tensor norms = ops->row_norms(in.keys.view(), norm);
      EXPECT_TRUE(std::isnan(norms.row(0, 0)[5]));
      EXPECT_FALSE(std::isnan(norms.row(0, 0)[4]));
    }
    Tensor scores(1, 1, 3);
    scores.row(0, 0)[1] = nan;
    EXPECT_THROW(ops->rank(scores.view(), {}), Error);
  }
}

TEST(Rank, TiesInfinitiesAndSignedZerosFollowTheContract) {
  const float inf = std::numeric_limits<float>::infinity();
  Tensor scores(1, 1, 8);
  const std::vector<float> values{0.0F, 2.0F, -inf, -0.0F, 2.0F, inf, -1.0F, 0.0F};
  std::copy(values.begin(), values.end(), scores.values().begin());
  for (const Ops* ops : {&slow(), &fast()}) {
    const auto order = [&](Protect protect) {
      const Ranking ranking = ops->rank(scores.view(), protect);
      return std::vector<std::uint32_t>(ranking.head(0).begin(), ranking.head(0).end());
    };
    EXPECT_THAT(order({0, 0}), testing::ElementsAre(5, 1, 4, 0, 3, 7, 6, 2));
    EXPECT_THAT(order({2, 2}), testing::ElementsAre(0, 1, 6, 7, 5, 4, 3, 2));
    EXPECT_THAT(order({6, 6}), testing::ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
    EXPECT_THAT(order({100, 100}), testing::ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  }
}

RC_GTEST_PROP(RankProperty, FastOrderIsTheReferenceOrder, ()) {
  const auto heads = *rc::gen::inRange<std::int64_t>(1, 4);
  const auto tokens = *rc::gen::inRange<std::int64_t>(1, 300);
  // Few distinct values, so that ties are the rule.
  const auto values =
      *rc::gen::container<std::vector<int>>(static_cast<std::size_t>(heads * tokens), rc::gen::inRange(-3, 4));
  Tensor scores(heads, 1, tokens);
  std::copy(values.begin(), values.end(), scores.values().begin());
  const Protect protect{*rc::gen::inRange<std::int64_t>(0, 20), *rc::gen::inRange<std::int64_t>(0, 20)};
  const Ranking a = fast().rank(scores.view(), protect);
  const Ranking b = slow().rank(scores.view(), protect);
  for (std::int64_t h = 0; h < heads; ++h) {
    RC_ASSERT(std::ranges::equal(a.head(h), b.head(h)));
    std::vector<std::uint32_t> sorted(a.head(h).begin(), a.head(h).end());
    std::sort(sorted.begin(), sorted.end());
    for (std::uint32_t j = 0; j < sorted.size(); ++j) RC_ASSERT(sorted[j] == j);
  }
}

// Every pattern of bits that is a number, and enough entries for wide digits.
TEST(Rank, ScoresOfAllMagnitudesFollowTheReference) {
  std::mt19937_64 random(9);
  for (const std::int64_t tokens : {1, 2, 2047, 2048, 5000}) {
    for (const std::uint32_t differ : {0xffffffffU, 0x007fffffU, 0x000000ffU, 0x80000000U, 0U}) {
      Tensor scores(2, 1, tokens);
      for (float& x : scores.values()) {
        x = std::bit_cast<float>((static_cast<std::uint32_t>(random()) & differ) | (0x3f800000U & ~differ));
        if (std::isnan(x)) x = 0;
      }
      const Ranking a = fast().rank(scores.view(), {1, 1});
      const Ranking b = slow().rank(scores.view(), {1, 1});
      for (std::int64_t h = 0; h < 2; ++h)
        ASSERT_TRUE(std::ranges::equal(a.head(h), b.head(h))) << tokens << ' ' << differ;
    }
  }
}

}  // namespace
}  // namespace depthkv
