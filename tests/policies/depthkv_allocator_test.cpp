// SPDX-License-Identifier: Apache-2.0
// The allocators that go by importance and by curves, against numbers worked out by hand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "depthkv/error.h"
#include "depthkv/importance.h"
#include "depthkv/trace.h"
#include "support/files.h"
#include "support/ranked_by_hand.h"
#include "support/scratch.h"
#include "support/spec.h"

namespace depthkv {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using Entries = std::vector<std::int64_t>;
using Numbers = std::vector<double>;

Entries depthkv(std::map<std::string, Value> params, std::size_t layers, std::int64_t entries,
                std::int64_t protect = 0) {
  return RankedByHand(blank_layers(layers, 100), {0, protect}).split({"depthkv", std::move(params), "test"}, entries);
}

// DepthKV-MLP: rho = 0.5 of six layers, two whole: the others keep 1 - 0.5 * 6 / 4 = 0.25.
TEST(Depthkv, ProtectsTheMiddleAndPrunesTheOthersAlike) {
  const std::map<std::string, Value> two{{"metric", text("none")}, {"protect_middle", std::int64_t{2}}};
  EXPECT_THAT(depthkv(two, 6, 300), ElementsAre(25, 25, 100, 100, 25, 25));
  EXPECT_THAT(depthkv(two, 5, 260), ElementsAre(20, 100, 100, 20, 20));
}

// m <= layers * keep = 1.2 doesn't hold, so one layer stays whole instead of two.
TEST(Depthkv, NarrowsAMiddleThatTheBudgetCantHoldWhereAsked) {
  const std::map<std::string, Value> two{
      {"metric", text("none")}, {"protect_middle", std::int64_t{2}}, {"narrow", std::int64_t{1}}};
  EXPECT_THAT(depthkv(two, 6, 120), ElementsAre(4, 4, 100, 4, 4, 4));
  EXPECT_THAT(depthkv(two, 6, 60), ElementsAre(10, 10, 10, 10, 10, 10));
  // 120 - 5 * 5 protected ones can't hold 100.
  EXPECT_THAT(depthkv(two, 6, 120, 5), ElementsAre(20, 20, 20, 20, 20, 20));
  const std::map<std::string, Value> all{
      {"metric", text("none")}, {"protect_middle", std::int64_t{9}}, {"narrow", std::int64_t{1}}};
  EXPECT_THAT(depthkv(all, 3, 300), ElementsAre(100, 100, 100));
}

// Paper's example: of 32 layers at keep 0.4, 12.8 can stay whole, less what the others have to keep.
TEST(Depthkv, RefusesAMiddleThatTheBudgetCantHold) {
  const auto why = [](std::int64_t middle, std::int64_t protect) -> std::string {
    try {
      depthkv({{"metric", text("none")}, {"protect_middle", middle}}, 32, 1280, protect);
    } catch (const InfeasibleBudget& refused) {
      return refused.what();
    }
    return "";
  };
  EXPECT_EQ(why(12, 0), "");
  EXPECT_THAT(why(13, 0),
              AllOf(HasSubstr("protect_middle=13 of 32 layers"), HasSubstr("keep 0.4"), HasSubstr("12 whole at most")));
  EXPECT_EQ(why(12, 4), "");  // 12 * 100 + 20 * 4 = 1280
  EXPECT_THAT(why(12, 5), HasSubstr("11 whole at most"));
  EXPECT_THAT(why(33, 0), HasSubstr("33 of 32"));
}

// DepthKV-MGA by a loss: one over 3, 2, 1. 66 entries as 12, 18, 36. MLMA: the same around a whole middle.
TEST(Depthkv, GoesByOneOverALossAroundTheMiddle) {
  std::map<std::string, Value> params{{"importance", Numbers{3, 2, 1}},
                                      {"sign", std::int64_t{-1}},
                                      {"normalise", text("none")},
                                      {"map", text("inverse")}};
  EXPECT_THAT(depthkv(params, 3, 66), ElementsAre(12, 18, 36));
  params["protect_middle"] = std::int64_t{1};
  EXPECT_THAT(depthkv(params, 3, 140), ElementsAre(10, 100, 30));
  // Importances that aren't all negative: one over 1 + distance to the most important: 1/3, 1/2, 1.
  params = {{"importance", Numbers{1, 2, 3}}, {"normalise", text("none")}, {"map", text("inverse")}};
  EXPECT_THAT(depthkv(params, 3, 66), ElementsAre(12, 18, 36));
}

// Weights 1, 2, 4: of 150 pruned ones 85.7, 42.9, 21.4.
TEST(Depthkv, PrunesInProportionToOneOverTheWeights) {
  const std::map<std::string, Value> params{
      {"importance", Numbers{1, 2, 4}}, {"normalise", text("none")}, {"map", text("shift")}, {"target", text("prune")}};
  EXPECT_THAT(depthkv(params, 3, 150), ElementsAre(14, 57, 79));
  // floor 0.25 * 30: at most 93 are pruned, the other 117 as 2 : 1.
  EXPECT_THAT(depthkv(params, 3, 90), ElementsAre(7, 22, 61));
  // Weights that underflow count as tiny ones.
  EXPECT_THAT(
      depthkv({{"importance", Numbers{-1e9, 0}}, {"normalise", text("none")}, {"target", text("prune")}}, 2, 100),
      ElementsAre(12, 88));
}

// Of an importance.json: what `metric` and `stage` say; a loss counts the other way round.
TEST(Depthkv, ReadsWhatAStudyMeasured) {
  const ScratchDirectory scratch;
  Importance importance;
  importance.model = "m";
  importance.shares = {0, 1};
  for (int l = 0; l < 3; ++l) {
    LayerImportance layer;
    layer.layer = l;
    layer.kl = l;
    layer.score_drop = 3 - l;
    layer.curve = {1, 0};
    layer.representations["infonce"] = {0, l == 1 ? 0.5 : 2, 7, 7};
    importance.layers.push_back(layer);
  }
  write_importance(importance, scratch / "importance.json");
  const std::string file = (scratch / "importance.json").string();
  const auto split = [&](const char* name, std::map<std::string, Value> params) {
    params["file"] = file;
    return RankedByHand(blank_layers(3, 100)).split({name, std::move(params), ""}, 150);
  };
  const auto rises = split("depthkv", {});
  EXPECT_LT(rises[0], rises[1]);
  EXPECT_LT(rises[1], rises[2]);
  EXPECT_EQ(split("depthkv", {{"metric", text("kl")}}), rises);
  const auto falls = split("depthkv", {{"metric", text("score")}});
  EXPECT_GT(falls[0], falls[1]);
  const auto guided = split("mga", {});
  EXPECT_GT(guided[1], guided[0]);
  EXPECT_EQ(guided[0], guided[2]);
  EXPECT_LT(split("mga", {{"sign", std::int64_t{1}}})[1], 50);
  EXPECT_EQ(split("mga", {{"stage", text("res")}}), (Entries{50, 50, 50}));
  EXPECT_EQ(split("mlma", {{"protect_middle", std::int64_t{1}}})[1], 100);
  for (const char* metric : {"length", "dime", "mass"})
    EXPECT_THROW(split("depthkv", {{"metric", text(metric)}}), InputError) << metric;
  const Registry registry = builtin_policies();
  EXPECT_FALSE(registry.make_layer_allocator({"mga", {}, ""}).unavailable.empty());
  EXPECT_TRUE(registry.make_layer_allocator({"mlp", {}, ""}).unavailable.empty());
}

TEST(Depthkv, MeasuresTheStageAndScalarAskedFor) {
  Tensor scalars(4, 1, 4);
  for (std::size_t i = 0; i < 16; ++i) scalars.values()[i] = static_cast<float>(i);
  LayerFeatures layer;
  layer.hidden_scalars = scalars.view();
  const auto measured = [&](const char* metric, const char* stage) {
    const LayerAllocator allocator =
        builtin_policies().make_layer_allocator({"depthkv", {{"metric", text(metric)}, {"stage", text(stage)}}, ""});
    EXPECT_TRUE(allocator.needs.has(Feature::hidden));
    EXPECT_FALSE(allocator.observed_curves);
    return allocator.measure(layer, ops_for(Device::cpu))[0];
  };
  const char* const scalar_names[] = {"curvature", "curvature_code", "entropy", "effective_rank"};
  for (std::size_t s = 0; s < kStages.size(); ++s) {
    for (std::size_t c = 0; c < kHiddenScalars.size(); ++c)
      EXPECT_EQ(measured(scalar_names[c], std::string(to_string(kStages[s])).c_str()), static_cast<double>(4 * s + c));
  }
}

TEST(Depthkv, SimilarLayersGetLessUnlessASignIsGiven) {
  RankedByHand sample(blank_layers(2, 100));
  sample.input.measured = {{0.9}, {0.1}};
  const Entries less = sample.split({"depthkv", {{"metric", text("cosine")}}, ""}, 100);
  EXPECT_LT(less[0], less[1]);
  const Entries more = sample.split({"depthkv", {{"metric", text("cosine")}, {"sign", std::int64_t{1}}}, ""}, 100);
  EXPECT_THAT(more, ElementsAre(less[1], less[0]));
}

// LMBA 1 and 3 (zigzag's), as they are, shifted: weights 1 and 3.
TEST(Depthkv, GoesByMinimalEntries) {
  const RankedByHand sample({{{98, 1, 1, 0, 0, 0, 0, 0}}, {{40, 30, 30, 0, 0, 0, 0, 0}}});
  EXPECT_THAT(
      sample.split({"depthkv", {{"metric", text("lmba")}, {"normalise", text("none")}, {"map", text("shift")}}, ""}, 8),
      ElementsAre(2, 6));
}

TEST(Depthkv, StaysFiniteForAnyImportance) {
  for (const char* normalise : {"zscore", "minmax", "rank", "none"}) {
    for (const char* map : {"softmax", "shift", "inverse"}) {
      for (const char* target : {"keep", "prune"}) {
        for (const Numbers& importance : {Numbers{1e308, -1e308, 0}, Numbers{0, 1e-320, 0}, Numbers{-1e-320, -1, -2}})
          EXPECT_EQ(depthkv({{"importance", importance},
                             {"normalise", text(normalise)},
                             {"map", text(map)},
                             {"target", text(target)}},
                            3, 90)
                        .size(),
                    3U);
      }
    }
  }
}

// Layers of 200 whose loss is (1 - k / 200)^2. At the minimum of (1 - a)^2 + 2 (1 - b)^2 with a + b = 0.8 the slopes
// are equal, so a = 0.2 and b = 0.6.
TEST(Optimised, WeighsLaterLayersAndDrawsTowardsEven) {
  RankedByHand sample(blank_layers(2, 200));
  sample.input.price = [](int, Rows rows, Metric, std::int64_t entries) {
    const double pruned = 1 - static_cast<double>(entries) / 200;
    return rows == Rows::observed ? pruned * pruned : 0;
  };
  const auto split = [&](std::map<std::string, Value> params) {
    return sample.split({"optimised", std::move(params), ""}, 160);
  };
  EXPECT_THAT(split({{"shrink", 0.0}}), ElementsAre(40, 120));
  EXPECT_THAT(split({}), ElementsAre(60, 100));
  EXPECT_THAT(split({{"shrink", 1.0}}), ElementsAre(80, 80));
  EXPECT_THAT(split({{"shrink", 0.0}, {"depth_weight", 0.0}}), ElementsAre(80, 80));
  EXPECT_THAT(split({{"shrink", 0.0}, {"sensitivity", Numbers{2, 1}}}), ElementsAre(120, 40));
  const ScratchDirectory scratch;
  const std::string file = write_text(scratch / "sensitivity.txt", "2\n1\n").string();
  EXPECT_THAT(split({{"shrink", 0.0}, {"file", file}}), ElementsAre(120, 40));
  sample.input.protected_per_head = 50;
  EXPECT_THAT(split({{"shrink", 0.0}}), ElementsAre(50, 110));
  sample.input.protected_per_head = 100;  // more than the budget holds
  EXPECT_THAT(split({{"shrink", 0.0}}), ElementsAre(80, 80));
}

// The same losses, learnt: between 65 points the curves are straight, so the minimum is one of those points.
TEST(Optimised, LearnsFromOtherSamplesAndLooksAtNoCurves) {
  Importance learnt;
  for (int i = 0; i <= 64; ++i) learnt.shares.push_back(i / 64.0);
  for (const int layer : {0, 1}) {
    learnt.layers.emplace_back();
    learnt.layers.back().layer = layer;
    learnt.layers.back().sensitivity = 1.0 + layer;
    for (const double share : learnt.shares) learnt.layers.back().curve.push_back((1 - share) * (1 - share));
  }
  const ScratchDirectory scratch;
  const std::string file = (scratch / "importance.json").string();
  write_importance(learnt, file);
  RankedByHand sample(blank_layers(2, 200));
  sample.input.price = [](int, Rows, Metric, std::int64_t) -> double { throw Error("no curves were asked for"); };
  const PolicySpec spec{"optimised", {{"shrink", 0.0}, {"file", file}}, ""};
  EXPECT_FALSE(builtin_policies().make_layer_allocator(spec).observed_curves);
  const std::vector<std::int64_t> entries = sample.split(spec, 160);
  EXPECT_NEAR(static_cast<double>(entries[0]), 40, 4);
  EXPECT_EQ(entries[0] + entries[1], 160);
  RankedByHand three(blank_layers(3, 200));
  EXPECT_THROW(three.split(spec, 160), InputError);
}

}  // namespace
}  // namespace depthkv
