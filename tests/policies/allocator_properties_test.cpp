// SPDX-License-Identifier: Apache-2.0
// What every allocator of the table promises, whatever it sees, and what the best ones are best at.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <numeric>
#include <random>

#include "depthkv/error.h"
#include "support/ranked_by_hand.h"

namespace depthkv {
namespace {

using Entries = std::vector<std::int64_t>;
using Numbers = std::vector<double>;

PolicySpec spec(const std::string& name, const std::string& key, const Value& value) {
  return {name, {{key, value}}, "test"};
}

// Every layer allocator of the table with its defaults, and whatever takes another path through one.
std::vector<PolicySpec> layer_specs(std::size_t layers) {
  const Registry registry = builtin_policies();
  std::vector<PolicySpec> specs;
  for (const auto& entry : registry.layer_allocators()) specs.push_back({entry.name, {}, "test"});
  for (const char* form : {"kvpress", "factory"}) specs.push_back(spec("pyramid", "form", std::string(form)));
  for (const char* metric : {"mass", "curvature", "cosine", "lmba", "cake", "none"}) {
    for (const char* map : {"softmax", "shift", "inverse"})
      specs.push_back({"depthkv",
                       {{"metric", std::string(metric)},
                        {"map", std::string(map)},
                        {"target", std::string("prune")},
                        {"protect_middle", std::int64_t{2}},
                        {"narrow", std::int64_t{1}}},
                       "test"});
  }
  specs.push_back(spec("explicit", "ratios", Numbers(layers, 0.5)));
  Numbers rising(layers);
  std::iota(rising.begin(), rising.end(), 0.0);
  specs.push_back(spec("explicit", "ratios", rising));
  specs.push_back(spec("d2o", "lo", 0.5));
  specs.push_back({"simlayer", {{"delta", 0.5}, {"sinks", std::int64_t{1}}, {"recent", std::int64_t{8}}}, "test"});
  specs.push_back(spec("kvcompose", "force_first", false));
  specs.push_back(spec("dynamickv", "rmax", 1.0));
  for (const char* metric : {"mass", "evidence"}) specs.push_back(spec("oracle", "metric", std::string(metric)));
  return specs;
}

std::vector<PolicySpec> head_specs(std::size_t heads) {
  const Registry registry = builtin_policies();
  std::vector<PolicySpec> specs;
  for (const auto& entry : registry.head_allocators()) specs.push_back({entry.name, {}, "test"});
  for (const char* mode : {"blend", "floor"}) {
    for (const double alpha : {0.0, 0.3, 1.0}) {
      for (const bool normalise : {false, true})
        specs.push_back({"adakv", {{"alpha", alpha}, {"mode", std::string(mode)}, {"normalise", normalise}}, "test"});
    }
  }
  specs.push_back(spec("explicit", "ratios", Numbers(heads, 0.5)));
  Numbers rising(heads);
  std::iota(rising.begin(), rising.end(), 0.0);
  specs.push_back(spec("explicit", "ratios", rising));
  specs.push_back({"duo", {{"sinks", std::int64_t{2}}, {"recent", std::int64_t{8}}, {"sparsity", 0.7}}, "test"});
  return specs;
}

// Few different scores, so that there are ties, some of them forced.
std::vector<float> drawn_scores(std::size_t tokens) {
  std::vector<float> scores;
  const int forced = *rc::gen::inRange(0, 4);
  for (std::size_t j = 0; j < tokens; ++j)
    scores.push_back(static_cast<int>(j) < forced ? kForced : static_cast<float>(*rc::gen::inRange(-3, 9)) / 4);
  return scores;
}

std::vector<RankedByHand::Scores> drawn_layers(std::size_t count, std::size_t tokens, int most_heads) {
  std::vector<RankedByHand::Scores> layers(count);
  for (auto& layer : layers) {
    layer.resize(static_cast<std::size_t>(*rc::gen::inRange(1, most_heads + 1)));
    for (auto& head : layer) head = drawn_scores(tokens);
  }
  return layers;
}

// Losses at 0 .. entries, convex and falling to 0.
Numbers drawn_curve(std::int64_t entries) {
  Numbers gains;
  for (std::int64_t k = 0; k < entries; ++k) gains.push_back(*rc::gen::inRange(0, 50));
  std::sort(gains.begin(), gains.end());  // the last ones kept gain least
  Numbers losses{0};
  for (const double gain : gains) losses.push_back(losses.back() + gain);
  std::reverse(losses.begin(), losses.end());
  return losses;
}

RC_GTEST_PROP(LayerAllocatorsProperty, SumsAreExactLimitsHoldAndRepeat, ()) {
  const auto count = *rc::gen::inRange<std::size_t>(1, 6);
  const auto tokens = *rc::gen::inRange<std::int64_t>(1, 40);
  const Protect protect{*rc::gen::inRange<std::int64_t>(0, 6), *rc::gen::inRange<std::int64_t>(0, 12)};
  RankedByHand sample(drawn_layers(count, static_cast<std::size_t>(tokens), 3), protect);
  LayerInput& input = sample.input;
  for (std::size_t l = 0; l < count; ++l) {
    input.measured.emplace_back();
    for (int i = 0; i < 4; ++i) input.measured.back().push_back(*rc::gen::inRange(0, 5) / 4.0);
  }
  std::vector<Numbers> losses;
  for (const LayerShape& layer : input.shape.layers) losses.push_back(drawn_curve(layer.kv_heads * tokens));
  input.price = [&](int layer, Rows, Metric, std::int64_t entries) {
    return losses[static_cast<std::size_t>(layer)][static_cast<std::size_t>(entries)];
  };
  for (const PolicySpec& each : layer_specs(count)) {
    const LayerAllocator allocator = builtin_policies().make_layer_allocator(each);
    if (!allocator.unavailable.empty()) continue;
    const LayerSplit split = allocator.prepare(input);
    for (const double keep : {0.01, 0.1, 0.25, 0.5, 0.77, 1.0}) {
      const Budget budget = budget_from_keep(input.shape, keep);
      const Entries entries = split(budget);
      RC_LOG() << each.name << ' ' << allocator.params << " keep " << keep << '\n';
      RC_ASSERT(entries.size() == count);
      RC_ASSERT(total(entries) == budget.entries);
      const bool fits = input.protected_per_head * input.shape.heads() <= budget.entries;
      for (std::size_t l = 0; l < count; ++l) {
        const std::int64_t heads = input.shape.layers[l].kv_heads;
        RC_ASSERT(entries[l] >= heads);
        RC_ASSERT(allocator.oracle || !fits || entries[l] >= heads * input.protected_per_head);
        RC_ASSERT(entries[l] <= heads * tokens);
      }
      RC_ASSERT(allocator.prepare(input)(budget) == entries);
    }
  }
}

using Draw = std::mt19937;

template <class T>
T one_of(std::initializer_list<T> choices, Draw& draw) {
  return choices.begin()[draw() % choices.size()];
}

// The paper's three strategies over as many layers, one drawn way of sharing for all.
std::vector<PolicySpec> drawn_strategies(std::size_t layers, Draw& draw) {
  using Word = std::string;
  PolicySpec mga{"depthkv",
                 {{"sign", one_of({std::int64_t{-1}, std::int64_t{1}}, draw)},
                  {"normalise", one_of({Word("zscore"), Word("minmax"), Word("rank"), Word("none")}, draw)},
                  {"map", one_of({Word("softmax"), Word("shift"), Word("inverse")}, draw)},
                  {"target", one_of({Word("keep"), Word("prune")}, draw)},
                  {"floor", one_of({0.0, 0.25, 0.9, 1.0}, draw)},
                  {"ceiling", one_of({1.0, 1.5, 4.0, 1e6}, draw)}},
                 "MGA"};
  PolicySpec mlp = mga;
  Numbers infonce;
  for (std::size_t l = 0; l < layers; ++l) infonce.push_back(static_cast<double>(draw() % 100) / 8.0 - 2);
  mga.params["importance"] = infonce;
  PolicySpec mlma = mga;
  mlp.params["metric"] = Word("none");
  const auto middle = static_cast<std::int64_t>(1 + draw() % layers);
  for (PolicySpec* spec : {&mlp, &mlma}) {
    spec->params["protect_middle"] = middle;
    spec->params["narrow"] = static_cast<std::int64_t>(draw() % 2);
  }
  return {mlp, mga, mlma};
}

// What an allocator without protected positions keeps at least: one entry per head, all of a middle block.
std::int64_t least_entries(const Shape& shape, std::int64_t middle) {
  const auto first = (static_cast<std::int64_t>(shape.layers.size()) - middle) / 2;
  std::int64_t least = 0;
  for (std::int64_t l = 0; l < static_cast<std::int64_t>(shape.layers.size()); ++l)
    least += shape.layers[static_cast<std::size_t>(l)].kv_heads * (l >= first && l < first + middle ? shape.tokens : 1);
  return least;
}

// At every budget the sum is exact and a middle block whole, or, where that doesn't fit, narrowed or refused.
void expect_exact(const LayerInput& input, const PolicySpec& spec) {
  const LayerAllocator allocator = builtin_policies().make_layer_allocator(spec);
  if (!allocator.unavailable.empty()) return;
  const LayerSplit split = allocator.prepare(input);
  const auto param = [&](const char* name) {
    const auto given = spec.params.find(name);
    return given == spec.params.end() ? 0 : std::get<std::int64_t>(given->second);
  };
  const std::int64_t middle = param("protect_middle");
  const std::int64_t least = least_entries(input.shape, middle);
  for (int tenths = 1; tenths <= 9; ++tenths) {
    SCOPED_TRACE(spec.name + " " + allocator.params + " keep 0." + std::to_string(tenths));
    const Budget budget = budget_from_keep(input.shape, tenths / 10.0);
    const bool fits = least <= budget.entries;
    if (!fits && middle > 0 && param("narrow") == 0) {
      EXPECT_THROW(split(budget), InfeasibleBudget);
      continue;
    }
    const Entries entries = split(budget);
    EXPECT_EQ(total(entries), budget.entries);
    const std::size_t first = (entries.size() - static_cast<std::size_t>(middle)) / 2;
    for (std::size_t l = first; fits && l < first + static_cast<std::size_t>(middle); ++l)
      EXPECT_EQ(entries[l], input.shape.layers[l].kv_heads * input.shape.tokens);
  }
}

TEST(LayerAllocatorsProperty, SumsAreExactForOneTo128Layers) {
  const Registry registry = builtin_policies();
  for (std::size_t count = 1; count <= 128; ++count) {
    Draw draw(static_cast<std::uint32_t>(count));
    const std::size_t tokens = 1 + draw() % 8;
    std::vector<RankedByHand::Scores> scores(count);
    for (RankedByHand::Scores& layer : scores) {
      layer.resize(1 + draw() % 2, std::vector<float>(tokens));
      for (auto& head : layer)
        for (float& score : head) score = static_cast<float>(draw() % 9) / 4;
    }
    RankedByHand sample(scores);
    for (std::size_t l = 0; l < count; ++l)
      sample.input.measured.push_back({static_cast<double>(l % 7) / 8, 0.5, 1, 2});
    sample.input.price = [](int layer, Rows, Metric, std::int64_t entries) {
      return (layer % 3 + 1.0) / static_cast<double>(entries + 1);
    };
    for (const auto& entry : registry.layer_allocators()) expect_exact(sample.input, {entry.name, {}, ""});
    for (int way = 0; way < 6; ++way)
      for (const PolicySpec& spec : drawn_strategies(count, draw)) expect_exact(sample.input, spec);
  }
}

RC_GTEST_PROP(HeadAllocatorsProperty, SumsAreExactLimitsHoldAndRepeat, ()) {
  const auto tokens = *rc::gen::inRange<std::int64_t>(1, 40);
  const Protect protect{*rc::gen::inRange<std::int64_t>(0, 6), *rc::gen::inRange<std::int64_t>(0, 12)};
  const RankedByHand sample(drawn_layers(1, static_cast<std::size_t>(tokens), 5), protect);
  HeadInput input = sample.heads(0);
  const std::int64_t count = input.scores.heads;
  Numbers measured;
  std::vector<Numbers> losses;
  for (std::int64_t g = 0; g < count; ++g) {
    measured.push_back(*rc::gen::inRange(0, 5) / 4.0);
    losses.push_back(drawn_curve(tokens));
  }
  input.measured = measured;
  input.price = [&](Rows, Metric, std::int64_t head, std::int64_t kept) {
    return losses[static_cast<std::size_t>(head)][static_cast<std::size_t>(kept)];
  };
  for (const PolicySpec& each : head_specs(static_cast<std::size_t>(count))) {
    const HeadAllocator allocator = builtin_policies().make_head_allocator(each);
    if (!allocator.unavailable.empty()) continue;
    const HeadSplit split = allocator.prepare(input);
    const HeadSplit again = allocator.prepare(input);
    for (std::int64_t entries = 0; entries <= count * tokens; ++entries) {
      const Entries kept = split(entries);
      RC_LOG() << each.name << ' ' << allocator.params << " entries " << entries << '\n';
      RC_ASSERT(static_cast<std::int64_t>(kept.size()) == count);
      RC_ASSERT(total(kept) == entries);
      for (const std::int64_t k : kept) RC_ASSERT(k >= 0 && k <= tokens);
      RC_ASSERT(again(entries) == kept);
    }
  }
}

// Pooled layers with adakv heads at alpha = 0, against sorting all entries: by score, then rank in its head, then head.
RC_GTEST_PROP(Pooled, WithAdakvAtAlphaZeroIsExactlyGlobalTopK, ()) {
  const auto count = *rc::gen::inRange<std::size_t>(1, 5);
  const auto tokens = *rc::gen::inRange<std::int64_t>(2, 20);
  const RankedByHand sample(drawn_layers(count, static_cast<std::size_t>(tokens), 3), {1, 0});
  struct Entry {
    float score;
    std::int64_t rank;
    std::size_t layer;
    std::size_t head;
  };
  std::vector<Entry> all;
  std::vector<Entries> expected;
  for (std::size_t l = 0; l < count; ++l) {
    const HeadInput ranked = sample.heads(static_cast<int>(l));
    expected.emplace_back(static_cast<std::size_t>(ranked.scores.heads), 1);
    for (std::int64_t g = 0; g < ranked.scores.heads; ++g) {
      for (std::int64_t k = 1; k < tokens; ++k)
        all.push_back({ranked.scores.row(g, 0)[ranked.ranking->head(g)[static_cast<std::size_t>(k)]], k, l,
                       static_cast<std::size_t>(g)});
    }
  }
  std::stable_sort(all.begin(), all.end(), [](const Entry& a, const Entry& b) {
    return a.score != b.score ? a.score > b.score : a.rank < b.rank;
  });
  const LayerSplit layers = builtin_policies().make_layer_allocator({"pooled", {}, ""}).prepare(sample.input);
  const HeadAllocator adakv = builtin_policies().make_head_allocator(spec("adakv", "alpha", 0.0));
  for (std::size_t k = 0; k <= all.size(); ++k) {
    const Entries entries = layers({sample.input.shape.heads() + static_cast<std::int64_t>(k)});
    for (std::size_t l = 0; l < count; ++l)
      RC_ASSERT(adakv.prepare(sample.heads(static_cast<int>(l)))(entries[l]) == expected[l]);
    if (k < all.size()) ++expected[all[k].layer][all[k].head];
  }
}

// A layer that was given more entries never loses some to a larger budget.
RC_GTEST_PROP(Pooled, KeptSetsAreNested, ()) {
  const RankedByHand sample(drawn_layers(3, 15, 3), {1, 2});
  for (const char* name : {"pooled", "kvcompose"}) {
    const LayerSplit split = builtin_policies().make_layer_allocator({name, {}, ""}).prepare(sample.input);
    Entries before(3, 0);
    for (std::int64_t k = sample.input.shape.heads() * 3; k <= sample.input.shape.entries(); ++k) {
      const Entries entries = split({k});
      for (std::size_t l = 0; l < 3; ++l) RC_ASSERT(entries[l] >= before[l]);
      before = entries;
    }
  }
}

RC_GTEST_PROP(Oracles, NoLayerAllocatorBeatsTheOracleOnConvexCurves, ()) {
  const auto count = *rc::gen::inRange<std::size_t>(1, 5);
  RankedByHand sample(drawn_layers(count, 20, 2));
  LayerInput& input = sample.input;
  std::vector<Numbers> losses;
  for (const LayerShape& layer : input.shape.layers) {
    losses.push_back(drawn_curve(layer.kv_heads * 20));
    input.measured.push_back({0.25 * *rc::gen::inRange(0, 5), 1, 1, 1});
  }
  input.price = [&](int layer, Rows, Metric, std::int64_t entries) {
    return losses[static_cast<std::size_t>(layer)][static_cast<std::size_t>(entries)];
  };
  const auto loss = [&](const Entries& entries) {
    double total = 0;
    for (std::size_t l = 0; l < count; ++l) total += losses[l][static_cast<std::size_t>(entries[l])];
    return total;
  };
  for (const double keep : {0.1, 0.3, 0.6, 0.9}) {
    const std::int64_t budget = budget_from_keep(input.shape, keep).entries;
    const double bound = loss(sample.split({"oracle", {}, ""}, budget));
    for (const PolicySpec& each : layer_specs(count)) {
      if (!builtin_policies().make_layer_allocator(each).unavailable.empty()) continue;
      RC_ASSERT(bound <= loss(sample.split(each, budget)));
    }
    // Unshrunk and unweighted, what it predicts is what it gets here.
    const PolicySpec optimised{"optimised", {{"shrink", 0.0}, {"depth_weight", 0.0}}, ""};
    RC_ASSERT(loss(sample.split(optimised, budget)) == bound);
  }
}

RC_GTEST_PROP(Oracles, NoHeadAllocatorBeatsTheOracleOnConvexCurves, ()) {
  const RankedByHand sample(drawn_layers(1, 15, 4));
  HeadInput input = sample.heads(0);
  const auto count = static_cast<std::size_t>(input.scores.heads);
  std::vector<Numbers> losses;
  for (std::size_t g = 0; g < count; ++g) losses.push_back(drawn_curve(15));
  const Numbers measured(count, 0.5);
  input.measured = measured;
  input.price = [&](Rows, Metric, std::int64_t head, std::int64_t kept) {
    return losses[static_cast<std::size_t>(head)][static_cast<std::size_t>(kept)];
  };
  const auto loss = [&](const Entries& kept) {
    double total = 0;
    for (std::size_t g = 0; g < count; ++g) total += losses[g][static_cast<std::size_t>(kept[g])];
    return total;
  };
  const HeadSplit oracle = builtin_policies().make_head_allocator({"oracle", {}, ""}).prepare(input);
  for (const PolicySpec& each : head_specs(count)) {
    const HeadAllocator allocator = builtin_policies().make_head_allocator(each);
    if (!allocator.unavailable.empty()) continue;
    const HeadSplit split = allocator.prepare(input);
    for (std::int64_t k = 0; k <= static_cast<std::int64_t>(count) * 15; ++k)
      RC_ASSERT(loss(oracle(k)) <= loss(split(k)));
  }
}

}  // namespace
}  // namespace depthkv
