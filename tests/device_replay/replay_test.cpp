// SPDX-License-Identifier: Apache-2.0
// Whole replays on a device, and what they give on the CPU. Where no GPU is, one is played (kernels/simt).
#include "depthkv/replay.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include <map>

#include "depthkv/report.h"
#include "kernels/cuda_backend.h"
#include "support/files.h"
#include "support/scratch.h"
#include "support/synthetic_trace.h"

namespace depthkv {
namespace {

const Progress kQuiet = [](std::string_view, std::int64_t, std::int64_t, std::string_view) {};

std::vector<PolicySpec> specs(std::initializer_list<const char*> names) {
  std::vector<PolicySpec> list;
  for (const char* name : names) list.push_back({name, {}, "test"});
  return list;
}

// Splits of these come from curves, which are sums of floats; those of all others from scores, which are the same bits.
bool looks_at_curves(const ResultTable& table, std::size_t policy) {
  const PolicyIndex index = table.policy(policy);
  const std::string& layers = table.policies.layer_allocators[index.layer_allocator].name;
  const std::string& heads = table.policies.head_allocators[index.head_allocator].name;
  return layers == "depthkv" || layers == "optimised" || layers == "oracle" || heads == "oracle";
}

struct Replayed {
  ResultTable table;
  std::map<std::string, std::vector<std::vector<std::uint32_t>>> kept;  // of policies that look at scores alone
  std::string csv;
};

class DeviceReplay : public testing::Test {
 protected:
  DeviceReplay() {
    SyntheticTrace options;
    options.head_dim = 20;
    options.uneven = true;
    options.moments = true;
    options.output_norms = true;
    options.segments = {{3, 90}, 101};
    options.tokens = 110;
    write_synthetic_trace(scratch_ / "traces", options);
    plan_.scorers = specs({"h2o", "knorm", "snapkv", "vatp", "cur", "oracle", "oracle_output", "dropkv"});
    plan_.structures = specs({"token", "critical", "block"});
    plan_.layer_allocators = specs({"uniform", "pyramid", "cake", "depthkv", "oracle"});
    plan_.head_allocators = specs({"uniform", "adakv", "oracle"});
    plan_.protect = {{2, 4}};
    plan_.keep = {0.05, 0.3, 0.7, 1.0};
    plan_.observed_rows = 20;
    for (PolicySpec& scorer : plan_.scorers)
      if (scorer.name == "snapkv" || scorer.name == "dropkv") scorer.params["window"] = std::int64_t{16};
  }

  Replayed run(Device device, int threads) {
    ReplayPlan plan = plan_;
    plan.device = device;
    plan.threads = threads;
    Replayed run;
    ReplayWatch watch;
    watch.kept = [&](const Sample& sample, const ResultTable& table, std::size_t policy, std::size_t keep, int layer,
                     const std::vector<std::vector<std::uint32_t>>& kept) {
      if (!looks_at_curves(table, policy))
        run.kept[sample.id + " " + std::to_string(policy) + " " + std::to_string(keep) + " " + std::to_string(layer)] =
            kept;
    };
    run.table = replay(open_trace_set(scratch_ / "traces"), plan, builtin_policies(), kQuiet, watch);
    write_results_csv(run.table, scratch_ / "results.csv");
    run.csv = read_text(scratch_ / "results.csv");
    return run;
  }

  ScratchDirectory scratch_;
  ReplayPlan plan_;
#ifndef DEPTHKV_ON_GPU
  UseCudaBackend played_{{cuda::ops, cuda::devices}};
#endif
};

TEST_F(DeviceReplay, KeepsWhatTheCpuKeepsAndMeasuresWhatItMeasures) {
  const Replayed cpu = run(Device::cpu, 1);
  const Replayed cuda = run(Device::cuda, 2);
  EXPECT_GT(cpu.kept.size(), 100U);
  EXPECT_EQ(cuda.kept, cpu.kept);
  const SampleResult& a = cpu.table.samples[0];
  const SampleResult& b = cuda.table.samples[0];
  std::size_t compared = 0;
  for (std::size_t p = 0; p < cpu.table.policies.size(); ++p) {
    EXPECT_EQ(b.why_skipped(cuda.table.policy(p)), a.why_skipped(cpu.table.policy(p)));
    if (looks_at_curves(cpu.table, p) || !a.why_skipped(cpu.table.policy(p)).empty()) continue;
    for (std::size_t k = 0; k < plan_.keep.size(); ++k) {
      for (const Metric metric : {Metric::mass, Metric::output_error, Metric::evidence}) {
        const double expected = cpu.table.value(a, p, k, metric);
        ASSERT_NEAR(cuda.table.value(b, p, k, metric), expected, 1e-6 + 1e-4 * expected) << p << ' ' << k;
        ++compared;
      }
    }
  }
  EXPECT_GT(compared, 500U);
  // Splits that come from curves may settle a tie otherwise, at next to no loss.
  for (std::size_t i = 0; i < a.values.size(); ++i) {
    ASSERT_EQ(std::isnan(b.values[i]), std::isnan(a.values[i])) << i;
    if (std::isnan(a.values[i])) continue;
    ASSERT_NEAR(b.values[i], a.values[i], 1e-3 + 0.02 * a.values[i]) << i;
  }
  EXPECT_THAT(cuda.csv, testing::HasSubstr(",cuda,"));
  EXPECT_THAT(cpu.csv, testing::Not(testing::HasSubstr(",cuda,")));
}

TEST_F(DeviceReplay, SameBytesForAnyNumberOfThreads) {
  plan_.scorers = specs({"h2o", "dropkv"});
  plan_.scorers[1].params["window"] = std::int64_t{16};
  const std::string one = run(Device::cuda, 1).csv;
  for (const int threads : {2, 4}) EXPECT_EQ(run(Device::cuda, threads).csv, one) << threads;
}

}  // namespace
}  // namespace depthkv
