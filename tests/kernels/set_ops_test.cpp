// SPDX-License-Identifier: Apache-2.0
// Ops on rankings, pages, precision and kept sets: each against its reference, and the promises of its contract.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "depthkv/error.h"
#include "kernels/cases.h"
#include "kernels/merge/merge.h"

namespace depthkv {
namespace {

using testing::ElementsAre;
using Along = QuantiseSpec::Along;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

const Ops& slow() { return ops_for(Device::reference); }
const Ops& fast() { return ops_for(Device::cpu); }

void expect_same(const Tensor& a, const Tensor& b) {
  ASSERT_EQ(a.values().size(), b.values().size());
  for (std::size_t i = 0; i < a.values().size(); ++i) {
    const bool both_nan = std::isnan(a.values()[i]) && std::isnan(b.values()[i]);
    ASSERT_TRUE(both_nan || a.values()[i] == b.values()[i]) << i << ": " << a.values()[i] << ' ' << b.values()[i];
  }
}

class SetOpsTest : public testing::TestWithParam<KernelCase> {
 protected:
  KernelInputs in_{GetParam(), 7};
};
INSTANTIATE_TEST_SUITE_P(Cases, SetOpsTest, testing::ValuesIn(kTestCases),
                         [](const auto& test) { return test.param.name; });

TEST_P(SetOpsTest, EvidenceCurvesAreTheSameBits) {
  const std::int64_t tokens = GetParam().tokens;
  const Ranking ranking = shuffled_ranking(GetParam().kv_heads, tokens, 3);
  std::vector<std::uint8_t> marked(static_cast<std::size_t>(tokens));
  EXPECT_TRUE(fast().evidence_curves(ranking, marked).empty());
  EXPECT_TRUE(slow().evidence_curves(ranking, marked).empty());
  for (std::size_t j = 0; j < marked.size(); j += 3) marked[j] = static_cast<std::uint8_t>(1 + j % 2);
  const Tensor curves = fast().evidence_curves(ranking, marked);
  expect_same(curves, slow().evidence_curves(ranking, marked));
  ASSERT_EQ(curves.columns(), tokens + 1);
  for (std::int64_t g = 0; g < curves.heads(); ++g) {
    EXPECT_EQ(curves.row(g, 0).front(), 1.0F);
    EXPECT_EQ(curves.row(g, 0).back(), 0.0F);
    for (std::size_t k = 1; k < curves.row(g, 0).size(); ++k) ASSERT_LE(curves.row(g, 0)[k], curves.row(g, 0)[k - 1]);
  }
}

TEST(EvidenceCurves, AreSharesOfWhatIsMarked) {
  Ranking ranking(1, 4);
  std::ranges::copy(std::vector<std::uint32_t>{2, 0, 3, 1}, ranking.head(0).begin());
  const std::vector<std::uint8_t> marked{1, 1, 0, 7};
  for (const Ops* ops : {&fast(), &slow()})
    EXPECT_THAT(ops->evidence_curves(ranking, marked).values(),
                ElementsAre(1.0F, 1.0F, static_cast<float>(2.0 / 3), static_cast<float>(1.0 / 3), 0.0F));
}

TEST(PooledBest, TakesByScoreThenPlaceThenList) {
  const std::vector<float> scores{5, 3, 5, 3, 3, 5, 3, 3, 1};
  const std::vector<std::int64_t> begins{0, 2, 2, 5, 9};
  const std::vector<std::int64_t> costs{1, 1, 1, 2};
  const PooledLists lists{.scores = scores, .begins = begins, .costs = costs};
  for (const Ops* ops : {&fast(), &slow()}) {
    EXPECT_THAT(ops->pooled_best(lists, 0), ElementsAre(0, 0, 0, 0));
    EXPECT_THAT(ops->pooled_best(lists, 2), ElementsAre(1, 0, 1, 0));
    EXPECT_THAT(ops->pooled_best(lists, 3), ElementsAre(1, 0, 1, 1)) << "the last item in part";
    EXPECT_THAT(ops->pooled_best(lists, 5), ElementsAre(2, 0, 1, 2)) << "equal scores: the lower list";
    EXPECT_THAT(ops->pooled_best(lists, 8), ElementsAre(2, 0, 2, 4)) << "the earlier place";
    EXPECT_THAT(ops->pooled_best(lists, 100), ElementsAre(2, 0, 3, 8)) << "no more than there is";
  }
}

RC_GTEST_PROP(PooledBestProperty, IsTheReferences, ()) {
  const Pool pool(*rc::gen::inRange(1, 9), *rc::gen::inRange(0, 40), *rc::gen::inRange(0, 4),
                  *rc::gen::arbitrary<std::uint64_t>());
  const auto all = static_cast<std::int64_t>(pool.scores.size());
  const std::int64_t entries = *rc::gen::inRange<std::int64_t>(0, 3 * all + 2);
  for (const PooledLists& lists : pool.lists_in_many_ways())
    RC_ASSERT(fast().pooled_best(lists, entries) == slow().pooled_best(lists, entries));
}

TEST_P(SetOpsTest, PageBoundsAreTheReferencesAndHoldTheirKeys) {
  const View keys = in_.keys.view();
  for (const std::int64_t size : {1, 4, 16, 1000}) {
    const PageBounds bounds = fast().page_bounds(keys, size);
    const PageBounds exact = slow().page_bounds(keys, size);
    expect_same(bounds.least, exact.least);
    expect_same(bounds.most, exact.most);
    const Tensor scores = fast().page_scores(in_.queries.view(), bounds);
    const Tensor exact_scores = slow().page_scores(in_.queries.view(), bounds);
    ASSERT_EQ(scores.columns(), (keys.rows + size - 1) / size);
    for (std::size_t i = 0; i < scores.values().size(); ++i)
      ASSERT_NEAR(scores.values()[i], exact_scores.values()[i],
                  1e-5 * (1 + static_cast<double>(std::abs(exact_scores.values()[i]))));
    for (std::int64_t h = 0; h < scores.heads(); ++h) {
      for (std::int64_t r = 0; r < scores.rows(); ++r) {
        for (std::int64_t j = 0; j < keys.rows; ++j) {
          double product = 0;
          for (std::size_t c = 0; c < static_cast<std::size_t>(keys.columns); ++c)
            product += static_cast<double>(in_.queries.row(h, r)[c]) *
                       static_cast<double>(keys.row(h / GetParam().group, j)[c]);
          ASSERT_LE(product, static_cast<double>(scores.row(h, r)[static_cast<std::size_t>(j / size)]) + 1e-4);
        }
      }
    }
  }
}

TEST(PageBounds, OfOneTokenAreItsKeyAndNanIsKept) {
  KernelInputs in({"", 1, 1, 10, 2, 6}, 3);
  const PageBounds each = fast().page_bounds(in.keys.view(), 1);
  EXPECT_TRUE(std::ranges::equal(each.least.values(), in.keys.values()));
  EXPECT_TRUE(std::ranges::equal(each.most.values(), in.keys.values()));
  for (const std::int64_t at : {4, 5, 7}) {  // first, in the middle, last of a page
    in.keys.row(0, at)[2] = kNan;
    for (const Ops* ops : {&fast(), &slow()}) {
      const PageBounds bounds = ops->page_bounds(in.keys.view(), 4);
      const Tensor scores = ops->page_scores(in.queries.view(), bounds);
      for (std::int64_t p = 0; p < 3; ++p) {
        for (std::size_t c = 0; c < 6; ++c) {
          EXPECT_EQ(std::isnan(bounds.least.row(0, p)[c]), p == 1 && c == 2);
          EXPECT_EQ(std::isnan(bounds.most.row(0, p)[c]), p == 1 && c == 2);
        }
        EXPECT_EQ(std::isnan(scores.row(0, 1)[static_cast<std::size_t>(p)]), p == 1);
      }
    }
    in.keys.row(0, at)[2] = 1;
  }
  EXPECT_THROW(fast().page_bounds(in.keys.view(), 0), Error);
}

TEST_P(SetOpsTest, QuantiseGivesTheReferencesBitsAndStaysWithinHalfAStep) {
  const View values = in_.values.view();
  for (const int bits : {1, 2, 4, 8}) {
    for (const Along along : {Along::tokens, Along::channels}) {
      for (const std::int64_t size : {1, 5, 32, 1000}) {
        const Tensor found = fast().quantise(values, {bits, along, size});
        expect_same(found, slow().quantise(values, {bits, along, size}));
        expect_same(fast().quantise(found.view(), {bits, along, size}), found);  // once is enough
        if (size == 1) expect_same(found, in_.values);
        // Values lie within +-6, and levels at most that range apart.
        const float half = 6.0F / static_cast<float>((1 << bits) - 1);
        for (std::size_t i = 0; i < found.values().size(); ++i)
          ASSERT_LE(std::abs(found.values()[i] - in_.values.values()[i]), half) << bits << ' ' << size;
      }
    }
  }
}

TEST(Quantise, RoundsHalvesToEvenAndKeepsEnds) {
  Tensor row(1, 1, 6);
  std::ranges::copy(std::vector<float>{0, 0.5F, 1.5F, 2.5F, 1.2F, 3}, row.values().begin());
  for (const Ops* ops : {&fast(), &slow()})
    EXPECT_THAT(ops->quantise(row.view(), {2, Along::channels, 6}).values(), ElementsAre(0, 0, 2, 2, 1, 3));
}

TEST(Quantise, EqualValuesStayAndWhatIsNotFiniteSpoilsItsGroup) {
  Tensor rows(1, 4, 6, 0.1F);
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float bad : {kNan, infinity, -infinity}) {
    rows.row(0, 2)[4] = bad;
    for (const Ops* ops : {&fast(), &slow()}) {
      const Tensor tokens = ops->quantise(rows.view(), {2, Along::tokens, 2});
      const Tensor channels = ops->quantise(rows.view(), {2, Along::channels, 4});
      for (std::int64_t r = 0; r < 4; ++r) {
        for (std::size_t c = 0; c < 6; ++c) {
          EXPECT_EQ(std::isnan(tokens.row(0, r)[c]), r >= 2 && c == 4);
          EXPECT_EQ(std::isnan(channels.row(0, r)[c]), r == 2 && c >= 4);
          if (!std::isnan(tokens.row(0, r)[c])) {
            EXPECT_EQ(tokens.row(0, r)[c], 0.1F);
          }
        }
      }
    }
  }
  EXPECT_TRUE(fast().quantise(Tensor(2, 0, 8).view(), {}).empty());
  EXPECT_THROW(fast().quantise(rows.view(), {9, Along::tokens, 2}), Error);
  EXPECT_THROW(fast().quantise(rows.view(), {2, Along::tokens, 0}), Error);
}

// Two kept keys may be as near as rounding tells; the chosen one is never worse than that.
TEST_P(SetOpsTest, NearestKeptIsTheReferencesButForRounding) {
  const KeptAndDropped parts(GetParam().tokens);
  for (int g = 0; g < GetParam().kv_heads; ++g) {
    const View keys = in_.keys.view().head_range(g, 1);
    const Nearest found = fast().nearest_kept(keys, parts.kept, parts.dropped);
    const Nearest exact = slow().nearest_kept(keys, parts.kept, parts.dropped);
    ASSERT_EQ(found.kept.size(), parts.dropped.size());
    for (std::size_t e = 0; e < parts.dropped.size(); ++e) {
      ASSERT_NEAR(found.similarity[e], exact.similarity[e], 2e-6) << e;
      if (parts.kept.empty()) continue;
      const std::vector<std::uint32_t> chosen{parts.kept[found.kept[e]]};
      const std::vector<std::uint32_t> own{parts.dropped[e]};
      ASSERT_NEAR(slow().nearest_kept(keys, chosen, own).similarity[0], exact.similarity[e], 2e-6) << e;
    }
  }
}

TEST_P(SetOpsTest, MergedRowsAreTheReferencesBits) {
  const KeptAndDropped parts(GetParam().tokens);
  const View keys = in_.keys.view().head_range(0, 1);
  const View values = in_.values.view().head_range(0, 1);
  const Nearest nearest = fast().nearest_kept(keys, parts.kept, parts.dropped);
  const MergeWeights d2o = d2o_weights(nearest, 0.3F);
  const MergeWeights press = merging_press_weights(nearest, values, parts.kept, parts.dropped, 0);
  for (const MergeWeights& merge : {d2o, press}) {
    const MergeInput input{values, parts.kept, parts.dropped, nearest.kept, merge.weights, merge.shares};
    if (!parts.kept.empty()) expect_same(fast().merge_rows(input), slow().merge_rows(input));
  }
}

TEST(Merge, ChoosesByDirectionAndTiesGoToTheLowerPosition) {
  Tensor keys(1, 6, 2);
  const std::vector<std::vector<float>> points{{1, 0}, {0, 9}, {2, 0}, {0, 0}, {3, 0}, {0, 1}};
  for (std::size_t j = 0; j < points.size(); ++j)
    std::ranges::copy(points[j], keys.row(0, static_cast<std::int64_t>(j)).begin());
  const std::vector<std::uint32_t> kept{0, 1, 2};
  const std::vector<std::uint32_t> dropped{3, 4, 5};
  for (const Ops* ops : {&fast(), &slow()}) {
    const Nearest nearest = ops->nearest_kept(keys.view(), kept, dropped);
    EXPECT_THAT(nearest.kept, ElementsAre(0, 0, 1));
    EXPECT_THAT(nearest.similarity, ElementsAre(0.0F, 1.0F, 1.0F));
    const MergeWeights merge = d2o_weights(nearest, 0.5F);
    EXPECT_THAT(merge.weights, ElementsAre(0.0F, 1.0F, 1.0F));
    const Tensor merged = ops->merge_rows({keys.view(), kept, dropped, nearest.kept, merge.weights, merge.shares});
    EXPECT_THAT(merged.values(), ElementsAre(2.0F, 0.0F, 0.0F, 5.0F, 2.0F, 0.0F));
  }
}

TEST(Merge, MergingPressWeighsByTheNormsOfValues) {
  Tensor values(1, 3, 1);
  std::ranges::copy(std::vector<float>{3, 1, -6}, values.values().begin());
  const std::vector<std::uint32_t> kept{0};
  const std::vector<std::uint32_t> dropped{1, 2};
  const Nearest nearest{{0, 0}, {0.5F, -0.1F}};
  const MergeWeights merge = merging_press_weights(nearest, values.view(), kept, dropped, 0);
  EXPECT_NEAR(merge.weights[0], 0.5 * 1 / 4, 1e-6);
  EXPECT_EQ(merge.weights[1], 0.0F);
  EXPECT_EQ(merging_press_weights(nearest, values.view(), kept, dropped, 0.6F).weights[0], 0.0F);
  EXPECT_NEAR(fast().merge_rows({values.view(), kept, dropped, nearest.kept, merge.weights, merge.shares}).row(0, 0)[0],
              (3 + 0.125) / 1.125, 1e-6);
}

TEST(Merge, NanIsNotSwallowedAndNothingKeptMergesNothing) {
  KernelInputs in({"", 1, 1, 90, 1, 7}, 1);
  const KeptAndDropped parts(90);
  in.keys.row(0, parts.kept[7])[3] = kNan;
  in.keys.row(0, parts.dropped[5])[0] = kNan;
  for (const Ops* ops : {&fast(), &slow()}) {
    const Nearest found = ops->nearest_kept(in.keys.view(), parts.kept, parts.dropped);
    for (std::size_t e = 0; e < parts.dropped.size(); ++e) {
      EXPECT_EQ(found.kept[e], e == 5 ? 0U : 7U);
      EXPECT_TRUE(std::isnan(found.similarity[e]));
    }
    EXPECT_TRUE(std::isnan(d2o_weights(found, 0.5F).weights[0]));
    const Nearest none = ops->nearest_kept(in.keys.view(), {}, parts.dropped);
    EXPECT_EQ(none.similarity, std::vector<float>(parts.dropped.size(), -1.0F));
    EXPECT_EQ(ops->merge_rows({in.keys.view(), {}, {}, {}, {}, {}}).heads(), 1);
  }
}

RC_GTEST_PROP(QuantiseProperty, LevelsAreAtMostAsManyAsBitsGive, ()) {
  const KernelCase c{"random", 1, 1, *rc::gen::inRange<std::int64_t>(1, 70), 1, *rc::gen::inRange<std::int64_t>(1, 40)};
  const KernelInputs in(c, *rc::gen::arbitrary<std::uint64_t>());
  const int bits = *rc::gen::inRange(1, 5);
  const Tensor found = fast().quantise(in.values.view(), {bits, Along::tokens, c.tokens});
  for (std::size_t channel = 0; channel < static_cast<std::size_t>(c.columns); ++channel) {
    std::vector<float> seen;
    for (std::int64_t r = 0; r < c.tokens; ++r) seen.push_back(found.row(0, r)[channel]);
    std::ranges::sort(seen);
    const auto repeated = std::ranges::unique(seen);
    seen.erase(repeated.begin(), repeated.end());
    RC_ASSERT(seen.size() <= std::size_t{1} << bits);
  }
}

}  // namespace
}  // namespace depthkv
