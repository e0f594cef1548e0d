// SPDX-License-Identifier: Apache-2.0
// What holds for every policy of the table, known or yet to come, and the goldens of each.
#include "depthkv/registry.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <deque>
#include <numeric>
#include <random>

#include "depthkv/error.h"
#include "depthkv/replay.h"
#include "replay/csv.h"
#include "replay/layer_pass.h"
#include "support/files.h"
#include "support/source.h"
#include "support/synthetic_trace.h"

namespace depthkv {
namespace {

const std::filesystem::path kSample = kSource / "traces/samples/tiny.h5";

// The committed sample that goldens rest on. Made again where it is missing: delete it and run these tests.
Trace tiny_sample() {
  if (!std::filesystem::exists(kSample)) {
    SyntheticTrace options;
    options.id = "tiny";
    options.layers = 2;
    options.segments = {{2, 30}, 40};
    options.tokens = 46;
    options.all_queries = true;
    options.hidden = true;
    options.moments = true;
    options.output_norms = true;
    options.repeats = true;
    options.rotary_layout = "half_split";
    options.codec = Codec::deflate;
    write_synthetic_trace(kSample.parent_path(), options);
  }
  return Trace::open(kSample);
}

TEST(Registry, TheCommittedSampleIsAsTheFormatSays) {
  EXPECT_THAT(validate_trace_set(tiny_sample().path(), [](auto&&...) {}), testing::IsEmpty());
}

constexpr std::int64_t kWindowRows = 64;  // at least any scorer's default

// Everything that scorers may ask for, but what the sample doesn't hold.
LayerData load_all(const Trace& trace, int layer, const Ops& ops) {
  LoadRequest request;
  for (const Feature feature : kFeatures) {
    const Needs one = needs({feature}, kWindowRows);
    if (!missing(trace, one, Cut::prompt)) request.needs = request.needs | one;
  }
  request.window_rows = kWindowRows;
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
  EXPECT_EQ(names(registry.scorers()), files("policies/scorers", {"calibration", "cholesky", "compaction", "eviction",
                                                                  "future", "group", "noise", "pooling"}));
  std::vector<std::string> allocators = names(registry.layer_allocators());
  for (const std::string& name : names(registry.head_allocators()))
    if (std::find(allocators.begin(), allocators.end(), name) == allocators.end()) allocators.push_back(name);
  std::sort(allocators.begin(), allocators.end());
  EXPECT_EQ(allocators,
            files("policies/allocators", {"envelope", "importance", "limits", "measures", "sorted_lists", "table"}));
  EXPECT_EQ(names(registry.structures()), files("policies/structures", {"stages"}));
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
  for (const auto& entry : registry.scorers()) {
    if (registry.make_scorer({entry.name, {}, ""}).unavailable.empty()) names.push_back(entry.name);
  }
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

// Which parts of a layer stand for which feature.
void drop(LayerFeatures& seen, Feature feature) {
  switch (feature) {
    case Feature::keys:
      seen.keys = {};
      break;
    case Feature::values:
      seen.values = {};
      break;
    case Feature::column_sums:
      seen.column_sums = {};
      break;
    case Feature::window:
      break;  // with the question's
    case Feature::question:
      break;
    case Feature::unrotated_keys:
      seen.unrotated_keys = {};
      break;
    case Feature::queries:
      seen.queries = {};
      break;
    case Feature::query_moments:
      seen.query_mean = seen.query_second_moment = {};
      break;
    case Feature::output_norms:
      seen.output_norms_l1 = seen.output_norms_l2 = {};
      break;
    case Feature::cosines:
      seen.cosines = {};
      break;
    case Feature::hidden:
      seen.hidden_scalars = {};
      break;
    case Feature::judged:
      seen.judged_sums = seen.judged = seen.all_values = {};
      break;
    case Feature::window_queries:
      seen.window_queries = {};
      break;
    case Feature::repeated:
      seen.repeat_chunk = seen.repeat_per_input = seen.repeat_cache = {};
      break;
  }
}

// What a scorer doesn't ask for it doesn't get, and what it says about its group is so.
TEST_P(EveryScorer, WorksOnWhatItAsksForAlone) {
  const Ops& ops = ops_for(Device::cpu);
  const LayerData data = load_all(trace_, 0, ops);
  LayerFeatures seen = data.features;
  for (const Feature feature : kFeatures) {
    if (!scorer_.needs.has(feature)) drop(seen, feature);
  }
  if (!scorer_.needs.has(Feature::window) && !scorer_.needs.has(Feature::question)) seen.window = {};
  EXPECT_TRUE(std::ranges::equal(scorer_.score(seen, ops).values(), scorer_.score(data.features, ops).values()));
  EXPECT_THAT(scorer_.group, testing::AnyOf("mean", "max", "sum", "none"));
  EXPECT_EQ(scorer_.oracle, scorer_.needs.has(Feature::judged)) << "whoever reads judged rows is an oracle";
}

// The same for what allocators measure, finite and one list per layer.
template <class Allocator>
void expect_measures_what_it_asks_for(const Allocator& allocator, const LayerData& data) {
  if (!allocator.measure) return;
  const Ops& ops = ops_for(Device::cpu);
  LayerFeatures seen = data.features;
  for (const Feature feature : kFeatures) {
    if (!allocator.needs.has(feature)) drop(seen, feature);
  }
  if (!allocator.needs.has(Feature::window) && !allocator.needs.has(Feature::question)) seen.window = {};
  const std::vector<double> measured = allocator.measure(seen, ops);
  EXPECT_EQ(measured, allocator.measure(data.features, ops)) << allocator.name << ' ' << allocator.params;
  EXPECT_FALSE(measured.empty());
  for (const double number : measured) EXPECT_TRUE(std::isfinite(number)) << allocator.name;
}

TEST(EveryAllocator, MeasuresOnWhatItAsksForAlone) {
  const Registry registry = builtin_policies();
  const LayerData data = load_all(tiny_sample(), 0, ops_for(Device::cpu));
  for (const auto& entry : registry.layer_allocators())
    expect_measures_what_it_asks_for(registry.make_layer_allocator({entry.name, {}, ""}), data);
  for (const auto& entry : registry.head_allocators())
    expect_measures_what_it_asks_for(registry.make_head_allocator({entry.name, {}, ""}), data);
  for (const char* metric : {"curvature", "curvature_code", "entropy", "effective_rank", "cosine", "cake"})
    expect_measures_what_it_asks_for(registry.make_layer_allocator({"depthkv", {{"metric", std::string(metric)}}, ""}),
                                     data);
}

// Swapping two KV heads, with their query heads, swaps their scores.
TEST_P(EveryScorer, HeadsDoNotMix) {
  if (!scorer_.depends_on_head_number) {
    const Ops& ops = ops_for(Device::cpu);
    const LayerData data = load_all(trace_, 0, ops);
    LayerFeatures other = data.features;
    std::deque<Tensor> swapped;  // views stay valid
    for (View* view : {&other.keys, &other.values, &other.unrotated_keys, &other.queries, &other.column_sums,
                       &other.window, &other.query_mean, &other.query_second_moment, &other.output_norms_l1,
                       &other.output_norms_l2, &other.judged_sums, &other.judged, &other.all_values,
                       &other.window_queries, &other.repeat_chunk, &other.repeat_per_input, &other.repeat_cache}) {
      if (view->data == nullptr) continue;
      Tensor out(view->heads, view->rows, view->columns);
      for (std::int64_t h = 0; h < view->heads; ++h)
        for (std::int64_t r = 0; r < view->rows; ++r)
          std::ranges::copy(view->row((h + view->heads / 2) % view->heads, r), out.row(h, r).begin());
      swapped.push_back(std::move(out));
      *view = swapped.back().view();
    }
    const Tensor before = scorer_.score(data.features, ops);
    const Tensor after = scorer_.score(other, ops);
    EXPECT_TRUE(std::ranges::equal(after.row(0, 0), before.row(1, 0)));
    EXPECT_TRUE(std::ranges::equal(after.row(1, 0), before.row(0, 0)));
  }
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

// Kept counts of h2o's rankings, each allocator beside a uniform one.
class AllocatorGoldens : public testing::Test {
 protected:
  AllocatorGoldens() {
    plan_.scorers = {{"h2o", {}, ""}};
    plan_.protect = {{2, 4}};
    plan_.threads = 1;
  }
  void expect(const std::string& name, const PolicySpec& layers, const PolicySpec& heads) {
    plan_.layer_allocators = {layers};
    plan_.head_allocators = {heads};
    const Policies policies = make_policies(plan_, builtin_policies());
    const Trace trace = tiny_sample();
    SampleCurves curves(trace, plan_, policies);
    if (!curves.layer_skipped[0].empty() || !curves.head_skipped[0].empty()) return;  // needs a file
    curves.run({true});
    const RankedSample sample = curves.load({0, std::nullopt});
    const std::vector<HeadSplit> split = sample.head_splits(policies.head_allocators[0], curves.measured_by_heads(0));
    const RankedSample::Allocator allocator(sample, policies, {0, 0, 0}, curves.measured_by_layers(0), split);
    std::vector<std::vector<double>> rows;
    for (const double keep : {0.2, 0.4, 0.8}) {
      const Allocation allocation = allocator.at(keep);
      for (std::size_t layer = 0; layer < allocation.kept.size(); ++layer)
        for (std::size_t g = 0; g < allocation.kept[layer].size(); ++g)
          rows.push_back({keep, static_cast<double>(layer), static_cast<double>(g),
                          static_cast<double>(allocation.kept[layer][g])});
    }
    expect_golden(name, {"keep", "layer", "kv_head", "kept"}, rows);
  }
  ReplayPlan plan_;
};

TEST_F(AllocatorGoldens, Layers) {
  const Registry registry = builtin_policies();
  for (const auto& entry : registry.layer_allocators())
    expect("layers_" + entry.name, {entry.name, {}, ""}, {"uniform", {}, ""});
}

TEST_F(AllocatorGoldens, Heads) {
  const Registry registry = builtin_policies();
  for (const auto& entry : registry.head_allocators())
    expect("heads_" + entry.name, {"uniform", {}, ""}, {entry.name, {}, ""});
}

}  // namespace
}  // namespace depthkv
