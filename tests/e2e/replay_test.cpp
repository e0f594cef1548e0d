// SPDX-License-Identifier: Apache-2.0
// Whole replays of synthetic traces.
#include "depthkv/replay.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>
#include <rapidcheck/gtest.h>

#include <cmath>

#include "depthkv/error.h"
#include "depthkv/progress.h"
#include "depthkv/report.h"
#include "support/files.h"
#include "support/scratch.h"
#include "support/synthetic_trace.h"

namespace depthkv {
namespace {

// Everything that is built in and needs no file.
ReplayPlan full_plan(const Registry& registry) {
  ReplayPlan plan;
  for (const auto& entry : registry.scorers()) {
    const PolicySpec spec{entry.name, {}, "test"};
    if (registry.make_scorer(spec).unavailable.empty()) plan.scorers.push_back(spec);
  }
  for (const auto& entry : registry.layer_allocators()) {
    const PolicySpec spec{entry.name, {}, "test"};
    if (registry.make_layer_allocator(spec).unavailable.empty()) plan.layer_allocators.push_back(spec);
  }
  for (const auto& entry : registry.head_allocators()) {
    const PolicySpec spec{entry.name, {}, "test"};
    if (registry.make_head_allocator(spec).unavailable.empty()) plan.head_allocators.push_back(spec);
  }
  plan.protect = {{2, 4}, {0, 0}};
  plan.keep = {0.1, 0.3, 0.7, 1.0};
  plan.threads = 1;
  return plan;
}

class ReplayTest : public testing::Test {
 protected:
  ReplayTest() {
    SyntheticTrace options;
    options.hidden = options.repeats = true;
    options.moments = true;
    options.all_queries = true;
    options.output_norms = true;
    write_synthetic_trace(scratch_.path(), options);
    options.seed += 1;
    options.id = "second";
    write_synthetic_trace(scratch_.path(), options);
  }
  ResultTable run(const ReplayPlan& plan) { return replay(open_trace_set(scratch_.path()), plan, registry_, kQuiet); }

  ScratchDirectory scratch_;
  Registry registry_ = builtin_policies();
};

TEST_F(ReplayTest, KeepingEverythingLosesNothing) {
  const ResultTable table = run(full_plan(registry_));
  ASSERT_EQ(table.samples.size(), 2U);
  for (const SampleResult& sample : table.samples) {
    for (std::size_t p = 0; p < table.policies.size(); ++p) {
      EXPECT_EQ(table.value(sample, p, 3, Metric::mass), 1.0);
      EXPECT_EQ(table.value(sample, p, 3, Metric::output_error), 0.0);
    }
  }
}

TEST(ReplayWindows, LayersWithASlidingWindowAreNeverPruned) {
  const ScratchDirectory scratch;
  SyntheticTrace options;
  options.windows = {64, 0, 64};
  options.hidden = options.repeats = true;
  options.moments = true;
  const Trace trace = Trace::open(write_synthetic_trace(scratch / "some", options));
  EXPECT_EQ(trace.model().layers[2].window, 64);
  const Registry registry = builtin_policies();
  const ReplayPlan plan = full_plan(registry);
  const ResultTable table = replay(open_trace_set(scratch / "some"), plan, registry, kQuiet);
  const std::int64_t entries = 2 * trace.sample().segments.prompt_end;  // of the middle layer's two KV heads
  EXPECT_EQ(table.samples[0].entries[3], entries);
  const std::vector<KeepMask> masks =
      keep_masks(trace, table.plan, table.policies, {{table.policy(0), 0.3}, {table.policy(5), 0.7}});
  for (const KeepMask& mask : masks) {
    for (const std::size_t layer : {0, 2})
      for (const auto& head : mask.pruned[layer]) EXPECT_TRUE(head.empty());
  }
  EXPECT_EQ(static_cast<std::int64_t>(masks[0].pruned[1][0].size() + masks[0].pruned[1][1].size()),
            entries - table.samples[0].entries[1]);

  options.windows = {64, 64, 64};
  write_synthetic_trace(scratch / "all", options);
  EXPECT_THROW(replay(open_trace_set(scratch / "all"), plan, registry, kQuiet), InputError);
}

TEST_F(ReplayTest, EveryValueIsMeasuredAndInItsRange) {
  const ResultTable table = run(full_plan(registry_));
  EXPECT_FALSE(table.any_skipped());
  for (const SampleResult& sample : table.samples) {
    for (std::size_t p = 0; p < table.policies.size(); ++p) {
      for (std::size_t k = 0; k < table.plan.keep.size(); ++k) {
        const double mass = table.value(sample, p, k, Metric::mass);
        EXPECT_TRUE(mass >= 0 && mass <= 1) << mass;
        const double error = table.value(sample, p, k, Metric::output_error);
        EXPECT_TRUE(error >= 0) << error;
        EXPECT_EQ(std::isnan(table.value(sample, p, k, Metric::evidence)), !sample.has_evidence);
      }
    }
  }
}

// The budget only grows with keep; under an even split every head's kept set then only grows, and so does its mass.
TEST_F(ReplayTest, MassGrowsWithKeepUnderAnEvenSplit) {
  const ResultTable table = run(full_plan(registry_));
  for (std::size_t p = 0; p < table.policies.size(); ++p) {
    const PolicyIndex index = table.policy(p);
    if (table.policies.layer_allocators[index.layer_allocator].name != "uniform") continue;
    if (table.policies.head_allocators[index.head_allocator].name != "uniform") continue;
    for (std::size_t k = 1; k < table.plan.keep.size(); ++k) {
      EXPECT_GE(table.value(table.samples[0], p, k, Metric::mass),
                table.value(table.samples[0], p, k - 1, Metric::mass));
    }
  }
}

// By definition: among even splits without protection, no order
// of the entries retains more judged mass than the oracle's.
TEST_F(ReplayTest, NoScorerBeatsTheOracleOnMass) {
  const ResultTable table = run(full_plan(registry_));
  const auto even = [&](const std::string& scorer) {
    for (std::size_t p = 0; p < table.policies.size(); ++p) {
      const PolicyIndex index = table.policy(p);
      const Ranker& ranker = table.policies.rankers[index.ranker];
      if (ranker.scorer.name == scorer && ranker.protect == Protect{0, 0} &&
          table.policies.layer_allocators[index.layer_allocator].name == "uniform" &&
          table.policies.head_allocators[index.head_allocator].name == "uniform") {
        return p;
      }
    }
    throw Error("no such policy");
  };
  for (const PolicySpec& spec : table.plan.scorers) {
    for (std::size_t k = 0; k < table.plan.keep.size(); ++k) {
      EXPECT_LE(table.value(table.samples[0], even(spec.name), k, Metric::mass),
                table.value(table.samples[0], even("oracle"), k, Metric::mass) + 1e-6)
          << spec.name;
    }
  }
}

// They would look like policies that lose nothing.
TEST_F(ReplayTest, ValuesThatAreNotNumbersAreAnError) {
  const std::filesystem::path file = scratch_ / "second.h5";
  const hid_t trace = H5Fopen(file.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  const hid_t values = H5Dopen2(trace, "layers/1/values", H5P_DEFAULT);
  std::vector<float> numbers(180 * 2 * 8, 0.5F);
  numbers[100] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_GE(H5Dwrite(values, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, numbers.data()), 0);
  H5Dclose(values);
  H5Fclose(trace);
  ReplayPlan plan;
  plan.scorers = {{"random", {}, ""}};
  plan.layer_allocators = plan.head_allocators = {{"uniform", {}, ""}};
  for (const char* structure : {"token", "block"}) {
    plan.structures = {{structure, {}, ""}};
    try {
      run(plan);
      FAIL();
    } catch (const InputError& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr("second.h5: layer 1 has attention or values that aren't numbers"));
    }
  }
}

TEST_F(ReplayTest, SameBytesForAnyNumberOfThreads) {
  ReplayPlan plan = full_plan(registry_);
  std::string one;
  for (const int threads : {1, 2, 3, 8}) {
    plan.threads = threads;
    const auto file = scratch_ / "results.csv";
    write_results_csv(run(plan), file);
    if (one.empty()) one = read_text(file);
    EXPECT_EQ(read_text(file), one) << threads << " threads";
  }
}

TEST_F(ReplayTest, ReferenceDeviceAgrees) {
  ReplayPlan plan = full_plan(registry_);
  const ResultTable fast = run(plan);
  plan.device = Device::reference;
  const ResultTable slow = run(plan);
  std::size_t compared = 0;
  for (std::size_t p = 0; p < fast.policies.size(); ++p) {
    // Allocators that minimise a measured curve may settle a
    // near-tie differently; the curves themselves are compared
    // here.
    const PolicyIndex index = fast.policy(p);
    if (fast.policies.layer_allocators[index.layer_allocator].name != "uniform") continue;
    for (std::size_t k = 0; k < fast.plan.keep.size(); ++k) {
      for (const Metric metric : {Metric::mass, Metric::output_error}) {
        EXPECT_NEAR(fast.value(fast.samples[0], p, k, metric), slow.value(slow.samples[0], p, k, metric), 1e-4);
        ++compared;
      }
    }
  }
  EXPECT_GT(compared, 50U);
}

TEST_F(ReplayTest, SamplesDoNotDependOnTheirNeighbours) {
  const ResultTable both = run(full_plan(registry_));
  TraceSet set = open_trace_set(scratch_.path());
  set.files.erase(set.files.begin());
  const ResultTable alone = replay(set, full_plan(registry_), registry_, kQuiet);
  EXPECT_EQ(both.samples[1].values.size(), alone.samples[0].values.size());
  for (std::size_t i = 0; i < alone.samples[0].values.size(); ++i) {
    const double a = both.samples[1].values[i];
    const double b = alone.samples[0].values[i];
    EXPECT_TRUE(a == b || (std::isnan(a) && std::isnan(b)));
  }
}

TEST_F(ReplayTest, ResultsReadBackAsWritten) {
  ResultTable table = run(full_plan(registry_));
  table.plan_hash = "hash";
  const auto file = scratch_ / "results.csv";
  write_results_csv(table, file);
  const ResultTable again = read_results_csv(table.plan, registry_, file);
  const auto second = scratch_ / "second.csv";
  write_results_csv(again, second);
  EXPECT_EQ(read_text(second), read_text(file));
}

// A layer allocator and a head allocator that can't run, beside ones that can: every row keeps its own reason.
TEST_F(ReplayTest, ReasonsForSkippingReadBackWhereSeveralChoicesAreSkipped) {
  ReplayPlan plan;
  plan.scorers = {{"h2o", {}, "test"}, {"knorm", {}, "test"}};
  plan.layer_allocators = {{"explicit", {}, "test"}, {"uniform", {}, "test"}};
  plan.head_allocators = {{"uniform", {}, "test"}, {"headkv", {}, "test"}, {"explicit", {}, "test"}};
  const ResultTable table = run(plan);
  const auto file = scratch_ / "results.csv";
  write_results_csv(table, file);
  const ResultTable again = read_results_csv(table.plan, registry_, file);
  for (std::size_t p = 0; p < table.policies.size(); ++p)
    EXPECT_EQ(again.samples[0].why_skipped(table.policy(p)), table.samples[0].why_skipped(table.policy(p)));
  EXPECT_EQ(again.samples[0].head_skipped, table.samples[0].head_skipped);
  EXPECT_EQ(again.samples[0].layer_skipped, table.samples[0].layer_skipped);
}

// Two whole layers of three don't fit into less than two thirds: those rows say so, the others are measured.
TEST_F(ReplayTest, BudgetsThatAnAllocatorCantHoldAreSkippedWithAReason) {
  ReplayPlan plan;
  plan.scorers = {{"h2o", {}, "test"}};
  plan.protect = {{0, 0}, {2, 4}};
  plan.layer_allocators = {{"depthkv", {{"metric", std::string("none")}, {"protect_middle", std::int64_t{2}}}, "test"}};
  plan.head_allocators = {{"uniform", {}, "test"}};
  plan.keep = {0.3, 0.6, 0.8};
  ResultTable table = run(plan);
  table.plan_hash = "hash";
  EXPECT_TRUE(table.any_skipped());
  const SampleResult& sample = table.samples[0];
  for (std::size_t p = 0; p < table.policies.size(); ++p) {
    const bool whole_middle = table.policy(p).layer_allocator == 0;
    for (std::size_t k = 0; k < 3; ++k) {
      const bool refused = whole_middle && k < 2;
      EXPECT_EQ(std::isnan(table.value(sample, p, k, Metric::mass)), refused);
      EXPECT_EQ(table.why_skipped(sample, p, k).find("protect_middle=2 of 3 layers") != std::string::npos, refused);
    }
    EXPECT_EQ(sample.why_skipped(table.policy(p)), "");
  }
  const std::vector<PolicyChoice> refused{{{0, 0, 0}, 0.3}};
  const Trace trace = Trace::open(open_trace_set(scratch_.path()).files[0]);
  EXPECT_THROW(keep_masks(trace, table.plan, table.policies, refused), InfeasibleBudget);
  const auto file = scratch_ / "results.csv";
  write_results_csv(table, file);
  const ResultTable again = read_results_csv(table.plan, registry_, file);
  EXPECT_EQ(again.samples[0].budget_skipped, sample.budget_skipped);
  write_results_csv(again, scratch_ / "second.csv");
  EXPECT_EQ(read_text(scratch_ / "second.csv"), read_text(file));
}

TEST_F(ReplayTest, MasksHoldExactlyWhatTheBudgetPrunes) {
  const ReplayPlan plan = with_bounds(full_plan(registry_));
  const Policies policies = make_policies(plan, registry_);
  const Trace trace = Trace::open(open_trace_set(scratch_.path()).files[0]);
  const Shape shape{trace.sample().segments.at(plan.cut), trace.model().layers};
  std::vector<PolicyChoice> choices;
  for (std::size_t l = 0; l < policies.layer_allocators.size(); ++l) {
    for (std::size_t h = 0; h < policies.head_allocators.size(); ++h)
      choices.push_back({{l % policies.rankers.size(), l, h}, plan.keep[h % plan.keep.size()]});
  }
  const std::vector<KeepMask> masks = keep_masks(trace, plan, policies, choices);
  ASSERT_EQ(masks.size(), choices.size());
  for (std::size_t c = 0; c < choices.size(); ++c) {
    std::int64_t pruned = 0;
    for (const auto& layer : masks[c].pruned) {
      for (const auto& head : layer) {
        EXPECT_TRUE(std::is_sorted(head.begin(), head.end()));
        EXPECT_EQ(std::adjacent_find(head.begin(), head.end()), head.end());
        pruned += static_cast<std::int64_t>(head.size());
      }
    }
    EXPECT_EQ(pruned, shape.entries() - budget_from_keep(shape, choices[c].keep).entries);
  }
}

TEST_F(ReplayTest, PolicyWithoutWhatItNeedsGivesARowThatSaysSo) {
  SyntheticTrace options;
  options.id = "bare";
  options.column_sums = false;
  const ScratchDirectory bare;
  write_synthetic_trace(bare.path(), options);
  ReplayPlan plan;
  plan.scorers = {{"h2o", {}, "test"}, {"knorm", {}, "test"}};
  const ResultTable table = replay(open_trace_set(bare.path()), plan, registry_, kQuiet);
  EXPECT_TRUE(table.any_skipped());
  EXPECT_THAT(table.samples[0].ranker_skipped[0], testing::HasSubstr("column_sums"));
  EXPECT_EQ(table.samples[0].ranker_skipped[1], "");
}

}  // namespace
}  // namespace depthkv
