// SPDX-License-Identifier: Apache-2.0
// Whole replays on a device, and what they give on the CPU. Where no GPU is, one is played (kernels/simt).
#include "depthkv/replay.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include <map>

#include "depthkv/progress.h"
#include "depthkv/report.h"
#include "kernels/cuda_backend.h"
#include "support/files.h"
#include "support/scratch.h"
#include "support/synthetic_trace.h"
#ifndef DEPTHKV_ON_GPU
#include "kernels/device_lane.h"
#include "kernels/parallel.h"
#include "kernels/simt/memory.h"
#endif

namespace depthkv {
namespace {

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
  UseCudaBackend played_{{cuda::ops, cuda::devices, cuda::device_of, cuda::gather, cuda::device_of, cuda::upload}};
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

#ifndef DEPTHKV_ON_GPU
// Everything that a replay says, in the order of saying it.
struct Said {
  std::vector<std::string> progress;
  std::vector<std::string> watched;
  std::string csv;
};

class SeveralDevices : public DeviceReplay {
 protected:
  SeveralDevices() {
    plan_.scorers = specs({"snapkv", "knorm"});
    plan_.scorers[0].params["window"] = std::int64_t{16};
    plan_.structures = specs({"token", "block"});
    plan_.layer_allocators = specs({"uniform", "depthkv"});
    plan_.head_allocators = specs({"adakv"});
    plan_.device = Device::cuda;
    for (int i = 0; i < kSamples; ++i) {
      SyntheticTrace options;
      options.id = "sample-" + std::to_string(i);
      options.seed = static_cast<std::uint64_t>(i + 1);
      options.layers = 2;
      options.segments = {{3, 30}, 70 - 9 * i};  // the first takes longest
      options.tokens = options.segments.prompt_end + 5;
      write_synthetic_trace(scratch_ / "several", options);
    }
  }

  Said say(int devices, int threads) {
    const simt::WithDevices with(devices);
    plan_.threads = threads;
    Said said;
    ReplayWatch watch;
    watch.scores = [&](const Sample& sample, const ResultTable&, std::size_t ranker, int layer, const View& scores) {
      said.watched.push_back("scores " + sample.id + std::to_string(ranker) + std::to_string(layer) +
                             std::to_string(scores.row(1, 0)[3]));
    };
    watch.kept = [&](const Sample& sample, const ResultTable&, std::size_t policy, std::size_t keep, int layer,
                     const std::vector<std::vector<std::uint32_t>>& kept) {
      said.watched.push_back("kept " + sample.id + std::to_string(policy) + std::to_string(keep) +
                             std::to_string(layer) + testing::PrintToString(kept));
    };
    const Progress progress = [&](std::string_view, std::int64_t done, std::int64_t total, std::string_view what) {
      said.progress.push_back(std::to_string(done) + "/" + std::to_string(total) + " " + std::string(what));
    };
    const ResultTable table = replay(open_trace_set(scratch_ / "several"), plan_, builtin_policies(), progress, watch);
    write_results_csv(table, scratch_ / "results.csv");
    said.csv = read_text(scratch_ / "results.csv");
    return said;
  }

  static constexpr int kSamples = 5;
};

TEST_F(SeveralDevices, GiveTheSameBytesInTheSameOrder) {
  const Said one = say(1, 2);
  EXPECT_EQ(one.progress.size(), kSamples + 1U);
  EXPECT_GT(one.watched.size(), 200U);
  for (const int devices : {2, 3, 8}) {
    const Said several = say(devices, 4);
    EXPECT_EQ(several.csv, one.csv) << devices;
    EXPECT_EQ(several.watched, one.watched) << devices;
    EXPECT_EQ(several.progress.back(), one.progress.back());
  }
}

// What a lane has taken it keeps, so a device that was used has less left.
TEST_F(SeveralDevices, AreAllUsedAndHoldOneSampleEach) {
  const simt::WithDevices with(4);
  for (int device = 0; device < 4; ++device) {
    const UseDevice on(device);
    cuda::trim_idle_lanes();
    EXPECT_EQ(simt::memory_left().free, simt::memory_left().total) << device;
  }
  const Said said = say(3, 3);
  for (int device = 0; device < 4; ++device) {
    simt::use_device(device);
    EXPECT_EQ(simt::memory_left().free < simt::memory_left().total, device < 3) << device;
  }
  for (std::size_t begun = 0; begun < kSamples; ++begun)
    EXPECT_LT(static_cast<int>(begun), std::stoi(said.progress[begun]) + 3) << said.progress[begun];
}

TEST_F(SeveralDevices, TheErrorOfTheFirstBadSampleComesOut) {
  for (const int i : {1, 3}) {
    SyntheticTrace options;
    options.id = "sample-" + std::to_string(i);
    options.query_heads = 6;  // another model
    write_synthetic_trace(scratch_ / "several", options);
  }
  for (const int devices : {1, 4}) {
    try {
      say(devices, 4);
      FAIL();
    } catch (const InputError& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr("sample-1.h5")) << devices;
    }
  }
}
#endif

}  // namespace
}  // namespace depthkv
