// SPDX-License-Identifier: Apache-2.0
// What holds for every policy of the table, known or yet to come, and the goldens of each.
#include "depthkv/registry.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <numeric>
#include <random>

#include "depthkv/error.h"
#include "depthkv/replay.h"
#include "replay/csv.h"
#include "replay/curves.h"
#include "replay/features.h"
#include "support/files.h"
#include "support/synthetic_trace.h"

namespace depthkv {
namespace {

const std::filesystem::path kSource = DEPTHKV_SOURCE_DIR;
const std::filesystem::path kSample = kSource / "traces/samples/tiny.h5";

// The committed sample that goldens rest on. Made again where it is missing: delete it and run these tests.
Trace tiny_sample() {
  if (!std::filesystem::exists(kSample)) {
    SyntheticTrace options;
    options.id = "tiny";
    options.layers = 2;
    options.segments = {{2, 30}, 40};
    options.tokens = 46;
    options.attention = true;
    options.codec = Codec::deflate;
    write_synthetic_trace(kSample.parent_path(), options);
  }
  return Trace::open(kSample);
}

TEST(Registry, TheCommittedSampleIsAsTheFormatSays) {
  EXPECT_THAT(validate_trace_set(tiny_sample().path(), [](auto&&...) {}), testing::IsEmpty());
}

LayerData load_all(const Trace& trace, int layer, const Ops& ops) {
  LoadRequest request;
  request.needs = needs({Feature::keys, Feature::values, Feature::column_sums, Feature::window, Feature::judged}, 32);
  request.window_rows = 32;
  request.threads = 1;
  return load_layer(trace, layer, request, ops);
}

TEST(Registry, TablesListTheFilesBesideThemInOrder) {
  const Registry registry = builtin_policies();
  const auto files = [](const char* folder, const std::vector<std::string>& helpers) {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(kSource / folder)) {
      const std::string stem = entry.path().stem().string();
      const bool helper = std::find(helpers.begin(), helpers.end(), stem) != helpers.end();
      if (entry.path().extension() == ".cpp" && !helper) names.push_back(stem);
    }
    std::sort(names.begin(), names.end());
    return names;
  };
  const auto names = [](const auto& entries) {
    std::vector<std::string> all;
    for (const auto& entry : entries) all.push_back(entry.name);
    EXPECT_TRUE(std::is_sorted(all.begin(), all.end()));
    return all;
  };
  EXPECT_EQ(names(registry.scorers()), files("policies/scorers", {"group"}));
  std::vector<std::string> allocators = names(registry.layer_allocators());
  for (const std::string& name : names(registry.head_allocators()))
    if (std::find(allocators.begin(), allocators.end(), name) == allocators.end()) allocators.push_back(name);
  std::sort(allocators.begin(), allocators.end());
  EXPECT_EQ(allocators, files("policies/allocators", {"limits"}));
}

TEST(Registry, TakesNewPoliciesAndRefusesTakenNames) {
  Registry registry = builtin_policies();
  EXPECT_THROW(registry.add(Entry<Scorer>{"h2o", "", "", nullptr}), Error);
  registry.add(Entry<Scorer>{"mine", "", "", [](Params& params) {
                               params.take("strength", 2.0);
                               return Scorer{};
                             }});
  EXPECT_EQ(registry.make_scorer({"mine", {{"strength", std::int64_t{3}}}, ""}).params, "strength=3");
}

TEST(Registry, UnknownNamesSuggestTheNearest) {
  const Registry registry = builtin_policies();
  try {
    registry.make_scorer({"snapvk", {}, "plan.yaml:9"});
    FAIL() << "accepted";
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("plan.yaml:9: unknown scorer \"snapvk\" (did you mean \"snapkv\"?)"));
  }
  EXPECT_THROW(registry.make_layer_allocator({"adakv", {}, ""}), InputError);
  EXPECT_THROW(registry.make_head_allocator({"pyramid", {}, ""}), InputError);
}

class EveryScorer : public testing::TestWithParam<std::string> {
 protected:
  Scorer scorer_ = builtin_policies().make_scorer({GetParam(), {}, "test"});
  Trace trace_ = tiny_sample();
};
std::vector<std::string> scorer_names() {
  const Registry registry = builtin_policies();
  std::vector<std::string> names;
  for (const auto& entry : registry.scorers()) names.push_back(entry.name);
  return names;
}
INSTANTIATE_TEST_SUITE_P(Registry, EveryScorer, testing::ValuesIn(scorer_names()),
                         [](const auto& test) { return test.param; });

TEST_P(EveryScorer, GivesFiniteScoresOfTheRightShapeTwiceTheSame) {
  for (const Device device : {Device::cpu, Device::reference}) {
    const Ops& ops = ops_for(device);
    const LayerData data = load_all(trace_, 1, ops);
    const Tensor scores = scorer_.score(data.features, ops);
    EXPECT_EQ(scores.heads(), data.features.shape.kv_heads);
    EXPECT_EQ(scores.rows(), 1);
    EXPECT_EQ(scores.columns(), data.features.tokens);
    for (const float score : scores.values()) EXPECT_TRUE(std::isfinite(score));
    EXPECT_TRUE(std::ranges::equal(scores.values(), scorer_.score(data.features, ops).values()));
  }
}

// What a scorer doesn't ask for it doesn't get, and what it says about its group is so.
TEST_P(EveryScorer, WorksOnWhatItAsksForAlone) {
  const Ops& ops = ops_for(Device::cpu);
  const LayerData data = load_all(trace_, 0, ops);
  LayerFeatures seen = data.features;
  if (!scorer_.needs.has(Feature::keys)) seen.keys = {};
  if (!scorer_.needs.has(Feature::values)) seen.values = {};
  if (!scorer_.needs.has(Feature::column_sums)) seen.column_sums = {};
  if (!scorer_.needs.has(Feature::window)) seen.window = {};
  if (!scorer_.needs.has(Feature::judged)) seen.judged_sums = {};
  EXPECT_TRUE(std::ranges::equal(scorer_.score(seen, ops).values(), scorer_.score(data.features, ops).values()));
  EXPECT_THAT(scorer_.group, testing::AnyOf("mean", "max", "sum", "none"));
  EXPECT_EQ(scorer_.oracle, scorer_.needs.has(Feature::judged)) << "whoever reads judged rows is an oracle";
}

// KV heads are scored apart: swapping two of them swaps their scores.
TEST_P(EveryScorer, HeadsDoNotMix) {
  if (GetParam() == "random") return;  // its numbers belong to the place
  const Ops& ops = ops_for(Device::cpu);
  const LayerData data = load_all(trace_, 0, ops);
  const auto swapped = [](const View& view) {
    Tensor out(view.heads, view.rows, view.columns);
    for (std::int64_t h = 0; h < view.heads; ++h)
      for (std::int64_t r = 0; r < view.rows; ++r)
        std::ranges::copy(view.row((h + view.heads / 2) % view.heads, r), out.row(h, r).begin());
    return out;
  };
  const Tensor keys = swapped(data.features.keys);
  const Tensor values = swapped(data.features.values);
  const Tensor sums = swapped(data.features.column_sums);
  const Tensor window = swapped(data.features.window);
  const Tensor judged = swapped(data.features.judged_sums);
  LayerFeatures other = data.features;
  other.keys = keys.view();
  other.values = values.view();
  other.column_sums = sums.view();
  other.window = window.view();
  other.judged_sums = judged.view();
  const Tensor before = scorer_.score(data.features, ops);
  const Tensor after = scorer_.score(other, ops);
  EXPECT_TRUE(std::ranges::equal(after.row(0, 0), before.row(1, 0)));
  EXPECT_TRUE(std::ranges::equal(after.row(1, 0), before.row(0, 0)));
}

// Goldens: lines of numbers, six significant digits. DEPTHKV_UPDATE_GOLDENS=1 writes them anew.
void expect_golden(const std::string& name, const std::vector<std::string>& columns,
                   const std::vector<std::vector<double>>& rows) {
  const auto file = kSource / "tests/policies/goldens" / (name + ".csv");
  if (std::getenv("DEPTHKV_UPDATE_GOLDENS") != nullptr) {
    CsvWriter csv(columns);
    for (const auto& row : rows) {
      std::vector<std::string> fields;
      for (const double value : row) fields.push_back(fmt::format("{:.6g}", value));
      csv.row(fields);
    }
    write_text(file, csv.text());
    return;
  }
  const CsvTable golden = CsvTable::read(file);
  ASSERT_EQ(golden.rows(), rows.size());
  constexpr double kSixDigits = 1e-5;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    for (std::size_t c = 0; c < columns.size(); ++c) {
      const double expected = csv_number(golden.at(r, columns[c]));
      ASSERT_TRUE(std::abs(rows[r][c] - expected) <= kSixDigits * std::abs(expected))
          << golden.where(r) << ' ' << columns[c] << ": " << rows[r][c] << ", golden " << expected;
    }
  }
}

TEST_P(EveryScorer, Golden) {
  std::vector<std::vector<double>> rows;
  for (int layer = 0; layer < 2; ++layer) {
    const LayerData data = load_all(trace_, layer, ops_for(Device::cpu));
    const Tensor scores = scorer_.score(data.features, ops_for(Device::cpu));
    for (std::int64_t g = 0; g < scores.heads(); ++g)
      for (std::int64_t j = 0; j < scores.columns(); ++j)
        rows.push_back({static_cast<double>(layer), static_cast<double>(g), static_cast<double>(j),
                        static_cast<double>(scores.row(g, 0)[static_cast<std::size_t>(j)])});
  }
  expect_golden("scorer_" + GetParam(), {"layer", "kv_head", "position", "score"}, rows);
}

// Kept counts of h2o's rankings under every pair of allocators.
TEST(AllocatorGoldens, KeptCounts) {
  const Registry registry = builtin_policies();
  ReplayPlan plan;
  plan.scorers = {{"h2o", {}, ""}};
  plan.protect = {{2, 4}};
  for (const auto& entry : registry.layer_allocators()) plan.layer_allocators.push_back({entry.name, {}, ""});
  for (const auto& entry : registry.head_allocators()) plan.head_allocators.push_back({entry.name, {}, ""});
  plan.threads = 1;
  const Policies policies = make_policies(plan, registry);
  RankRequest request{{true}, true, true, true};
  const RankedSample sample = rank_sample(tiny_sample(), plan, policies, request);
  for (std::size_t h = 0; h < policies.head_allocators.size(); ++h) {
    for (std::size_t l = 0; l < policies.layer_allocators.size(); ++l) {
      std::vector<std::vector<double>> rows;
      for (const double keep : {0.2, 0.4, 0.8}) {
        const Allocation allocation = allocate(sample, policies, {0, l, h}, keep);
        for (std::size_t layer = 0; layer < allocation.kept.size(); ++layer)
          for (std::size_t g = 0; g < allocation.kept[layer].size(); ++g)
            rows.push_back({keep, static_cast<double>(layer), static_cast<double>(g),
                            static_cast<double>(allocation.kept[layer][g])});
      }
      expect_golden("allocators_" + policies.layer_allocators[l].name + "_" + policies.head_allocators[h].name,
                    {"keep", "layer", "kv_head", "kept"}, rows);
    }
  }
}

}  // namespace
}  // namespace depthkv
