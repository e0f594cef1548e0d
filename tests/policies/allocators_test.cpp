// SPDX-License-Identifier: Apache-2.0
// The first allocators against numbers worked out by hand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "depthkv/error.h"
#include "depthkv/registry.h"

namespace depthkv {
namespace {

using testing::ElementsAre;
using Entries = std::vector<std::int64_t>;

// Layers with one KV head each, whose loss at k of n entries is weight * (1 - k / n)^2.
LayerInput input_of(const std::vector<double>& losses, std::int64_t tokens, std::int64_t protect = 0) {
  LayerInput input;
  input.shape = {tokens, std::vector<LayerShape>(losses.size(), {2, 1, 4})};
  for (int layer = 0; layer < static_cast<int>(losses.size()); ++layer) input.layers.push_back(layer);
  input.protected_per_head = protect;
  input.price = [=](int layer, Rows, Metric, std::int64_t entries) {
    const double pruned = 1 - static_cast<double>(entries) / static_cast<double>(tokens);
    return losses[static_cast<std::size_t>(layer)] * pruned * pruned;
  };
  return input;
}

Entries layers(const std::string& name, const LayerInput& input, double keep,
               const std::map<std::string, Value>& params = {}) {
  const LayerAllocator allocator = builtin_policies().make_layer_allocator({name, params, "test"});
  return allocator.prepare(input)(budget_from_keep(input.shape, keep));
}

TEST(LayerAllocators, UniformGivesEveryLayerTheSame) {
  EXPECT_THAT(layers("uniform", input_of({1, 5, 9}, 100), 0.2), ElementsAre(20, 20, 20));
  EXPECT_THAT(layers("uniform", input_of({1, 1, 1}, 10), 0.34),
              ElementsAre(4, 3, 3));  // 10.2, remainders to the lowest
}

// N = 20 per head, beta = 2: last 10, first 40 - 10 = 30, linear between.
TEST(LayerAllocators, PyramidFallsLinearly) {
  EXPECT_THAT(layers("pyramid", input_of({1, 1, 1}, 100), 0.2, {{"beta", 2.0}}), ElementsAre(30, 20, 10));
  // Beyond 5 protected ones 15 are left: first 22.5, last 7.5.
  EXPECT_THAT(layers("pyramid", input_of({1, 1, 1}, 100, 5), 0.2, {{"beta", 2.0}}), ElementsAre(28, 20, 12));
  // The first can't hold more than there is: 100 % of 10, so the last rises.
  EXPECT_THAT(layers("pyramid", input_of({1, 1, 1}, 10), 0.8), ElementsAre(10, 8, 6));
}

// importance 1, 2, 3 as it is, shifted: weights 1, 2, 3.
TEST(LayerAllocators, DepthkvFollowsGivenImportance) {
  const std::map<std::string, Value> params{
      {"importance", std::vector<double>{1, 2, 3}}, {"normalise", std::string("none")}, {"map", std::string("shift")}};
  EXPECT_THAT(layers("depthkv", input_of({1, 1, 1}, 100), 0.2, params), ElementsAre(10, 20, 30));
  auto opposite = params;
  opposite["sign"] = std::int64_t{-1};
  EXPECT_THAT(layers("depthkv", input_of({1, 1, 1}, 100), 0.2, opposite), ElementsAre(30, 20, 10));
  // floor 0.8 and ceiling 1.2 of the even share of 20.
  auto bounded = params;
  bounded["floor"] = 0.8;
  bounded["ceiling"] = 1.2;
  EXPECT_THAT(layers("depthkv", input_of({1, 1, 1}, 100), 0.2, bounded), ElementsAre(16, 20, 24));
}

TEST(LayerAllocators, DepthkvMeasuresImportanceWhenNoneIsGiven) {
  const Entries entries = layers("depthkv", input_of({1, 2, 4}, 100), 0.2);
  EXPECT_LT(entries[0], entries[1]);
  EXPECT_LT(entries[1], entries[2]);
  // Equal layers share equally.
  EXPECT_THAT(layers("depthkv", input_of({3, 3, 3}, 100), 0.2), ElementsAre(20, 20, 20));
  EXPECT_THROW(layers("depthkv", input_of({1, 2}, 10), 0.5, {{"importance", std::vector<double>{1, 2, 3}}}),
               InputError);
}

// Convex losses w (1 - k/n)^2: at the optimum w (1 - k/n) is the same in every layer.
TEST(LayerAllocators, OracleEvensOutMarginalLosses) {
  const Entries entries = layers("oracle", input_of({1, 2}, 1000), 0.4);
  EXPECT_EQ(entries[0] + entries[1], 800);
  EXPECT_EQ(entries[0], 200);  // 1 (1 - 0.2) = 2 (1 - 0.6), between two budgets of the grid
}

// Random convex losses over far more budgets than the grid has: the best split takes the largest gains of all layers.
TEST(LayerAllocators, OracleIsExactOnConvexCurvesOfAnyLength) {
  std::mt19937 random(3);
  for (const std::int64_t tokens : {300, 1000, 4096}) {
    std::vector<std::vector<double>> losses;
    std::vector<double> all;
    for (const int scale : {1, 5, 200, 7}) {
      std::uniform_int_distribution<int> gain(0, 1000 * scale);
      std::vector<double> gains;
      for (std::int64_t k = 0; k < tokens; ++k) gains.push_back(gain(random));
      std::ranges::sort(gains);
      std::vector<double> loss{0};
      for (const double x : gains) loss.push_back(loss.back() + x);
      std::ranges::reverse(loss);
      losses.push_back(loss);
      all.insert(all.end(), gains.begin(), gains.end() - 1);  // every layer keeps an entry
    }
    std::ranges::sort(all);
    LayerInput input = input_of({1, 1, 1, 1}, tokens);
    input.price = [&](int layer, Rows, Metric, std::int64_t entries) {
      return losses[static_cast<std::size_t>(layer)][static_cast<std::size_t>(entries)];
    };
    for (const double keep : {0.05, 0.3, 0.8}) {
      const Entries entries = layers("oracle", input, keep);
      double loss = 0;
      for (std::size_t l = 0; l < losses.size(); ++l) loss += losses[l][static_cast<std::size_t>(entries[l])];
      const std::int64_t lost = 4 * tokens - budget_from_keep(input.shape, keep).entries;
      EXPECT_EQ(loss, std::accumulate(all.begin(), all.begin() + lost, 0.0)) << tokens << " tokens, keep " << keep;
    }
  }
}

HeadInput head_input(const Tensor& scores, const Ranking& ranking, Protect protect) {
  HeadInput input;
  input.scores = scores.view();
  input.ranking = &ranking;
  input.protect = protect;
  return input;
}

std::vector<std::int64_t> heads(const std::vector<std::vector<float>>& scores, std::int64_t entries,
                                const std::map<std::string, Value>& params, Protect protect = {}) {
  Tensor tensor(static_cast<std::int64_t>(scores.size()), 1, static_cast<std::int64_t>(scores[0].size()));
  for (std::size_t g = 0; g < scores.size(); ++g)
    std::copy(scores[g].begin(), scores[g].end(), tensor.row(static_cast<std::int64_t>(g), 0).begin());
  const Ranking ranking = ops_for(Device::cpu).rank(tensor.view(), protect);
  const HeadAllocator allocator = builtin_policies().make_head_allocator({"adakv", params, "test"});
  return allocator.prepare(head_input(tensor, ranking, protect))(entries);
}

// The best 4 of both heads are 9, 8, 7 of head 0 and 6 of head 1.
TEST(HeadAllocators, AdakvPoolsTheHeads) {
  const std::vector<std::vector<float>> scores{{9, 8, 7, 1}, {6, 5, 2, 0}};
  EXPECT_THAT(heads(scores, 4, {{"alpha", 0.0}}), ElementsAre(3, 1));
  EXPECT_THAT(heads(scores, 4, {{"alpha", 1.0}}), ElementsAre(2, 2));
  EXPECT_THAT(heads(scores, 4, {{"alpha", 0.5}}), ElementsAre(3, 1));  // 2.5 and 1.5: the remainder to the lower head
  EXPECT_THAT(heads(scores, 4, {{"alpha", 1.0}, {"mode", std::string("floor")}}), ElementsAre(2, 2));
  EXPECT_THAT(heads(scores, 4, {{"alpha", 0.0}, {"mode", std::string("floor")}}), ElementsAre(3, 1));
  EXPECT_THAT(heads(scores, 8, {}), ElementsAre(4, 4));
  EXPECT_THAT(heads(scores, 0, {}), ElementsAre(0, 0));
}

// Protected entries aren't in the pool: 1 each, then the best 2 of {8, 7, 1} and {5, 2, 0}.
TEST(HeadAllocators, AdakvLeavesProtectedEntriesOutOfThePool) {
  const std::vector<std::vector<float>> scores{{0, 8, 7, 1}, {0, 5, 2, 0}};
  EXPECT_THAT(heads(scores, 4, {{"alpha", 0.0}}, {1, 0}), ElementsAre(3, 1));
  EXPECT_THAT(heads(scores, 1, {{"alpha", 0.0}}, {1, 0}), ElementsAre(1, 0));  // not even those fit
}

}  // namespace
}  // namespace depthkv
