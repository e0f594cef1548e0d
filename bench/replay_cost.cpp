// SPDX-License-Identifier: Apache-2.0
// What replay costs beside the model. Run by bench/replay_cost.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "bench/long_sample.h"
#include "depthkv/progress.h"
#include "depthkv/report.h"
#include "depthkv/tasks.h"
#include "replay/layer_pass.h"

namespace depthkv {
namespace {

// All curves of one scorer, nothing kept from before.
double curve_seconds(const Trace& trace, const Registry& registry, const std::string& scorer, int threads) {
  ReplayPlan plan;
  plan.scorers = {{scorer, {}, ""}};
  plan.layer_allocators = plan.head_allocators = {{"uniform", {}, ""}};
  plan.threads = threads;
  const Policies policies = make_policies(plan, registry);
  return seconds_of([&] { SampleCurves(trace, plan, policies).run({true}); });
}

bool against_prefill(LlamaModel& model, const TracePlan& recording, const Trace& trace, int rounds) {
  const Registry registry = builtin_policies();
  const std::vector<Token> prompt = make_prompt(model, read_tasks(recording.tasks[0])[0]).tokens;
  bool good = true;
  for (const char* scorer : {"h2o", "snapkv", "knorm"}) {
    std::vector<double> ratios;
    std::vector<double> gains;
    for (int round = 0; round < rounds; ++round) {
      const double plain =
          std::min(seconds_of([&] { model.prefill(prompt, false); }), seconds_of([&] { model.prefill(prompt, true); }));
      const double two = curve_seconds(trace, registry, scorer, 2);
      const double one = curve_seconds(trace, registry, scorer, 1);
      fmt::print("round {}: prefill {:.2f} s, curves of {} {:.2f} s on two threads, {:.2f} s on one\n", round + 1,
                 plain, scorer, two, one);
      ratios.push_back(two / plain);
      gains.push_back(one / two);
    }
    const auto [low, middle, high] = spread(ratios);
    const auto [least, gain, most] = spread(gains);
    fmt::print(
        "{} tokens, {}: curves / prefill = {:.4f} [{:.4f}, {:.4f}], bar 0.05; two threads {:.2f} [{:.2f}, {:.2f}] "
        "times one, bar 1.7\n",
        prompt.size(), scorer, middle, low, high, gain, least, most);
    good = good && middle <= 0.05 && gain >= 1.7;
  }
  return good;
}

// Rows from curves that are there already.
bool from_cache(const TraceSet& traces, const std::filesystem::path& scratch) {
  const Registry registry = builtin_policies();
  ReplayPlan plan;
  for (const char* scorer : {"h2o", "snapkv", "knorm", "observed", "random"}) plan.scorers.push_back({scorer, {}, ""});
  for (const char* layers : {"uniform", "pyramid", "depthkv", "oracle"})
    plan.layer_allocators.push_back({layers, {}, ""});
  for (const char* heads : {"uniform", "adakv"}) plan.head_allocators.push_back({heads, {}, ""});
  for (int i = 1; i <= 2100; ++i) plan.keep.push_back(0.05 + 0.9 * i / 2100);
  plan.cache = scratch / "curves";
  std::size_t rows = 0;
  const auto run = [&] {
    const ResultTable table = replay(traces, plan, registry, kQuiet);
    rows = table.policies.size() * plan.keep.size();
  };
  run();
  const double seconds = seconds_of(run);
  fmt::print("{} (policy, keep) rows from cached curves: {:.2f} s, {:.0f} rows in 10 s, bar 100000\n", rows, seconds,
             static_cast<double>(rows) / seconds * 10);
  return static_cast<double>(rows) / seconds * 10 >= 100000;
}

bool same_bytes(const TraceSet& traces, const std::filesystem::path& scratch) {
  const Registry registry = builtin_policies();
  std::vector<std::string> written;
  for (const int threads : {1, 2}) {
    ReplayPlan plan;
    plan.scorers = {{"h2o", {}, ""}, {"snapkv", {}, ""}};
    plan.layer_allocators = {{"depthkv", {}, ""}};
    plan.head_allocators = {{"adakv", {}, ""}};
    plan.threads = threads;
    write_results_csv(replay(traces, plan, registry, kQuiet), scratch / "results.csv");
    std::ifstream stream(scratch / "results.csv");
    written.emplace_back(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
  }
  fmt::print("results of one thread and of two: {}\n", written[0] == written[1] ? "the same bytes" : "DIFFERENT");
  return written[0] == written[1];
}

int run(const std::filesystem::path& model_file, const std::filesystem::path& tasks,
        const std::filesystem::path& scratch, std::int64_t tokens, int rounds) {
  LlamaModel model({.model = model_file});
  const TracePlan recording = long_sample(model, tasks, scratch, tokens, 64);
  record_traces(model, recording, scratch / "traces", kQuiet);
  const TraceSet traces = open_trace_set(scratch / "traces");
  const bool cheap = against_prefill(model, recording, Trace::open(traces.files[0]), rounds);
  const bool cached = from_cache(traces, scratch);
  const bool same = same_bytes(traces, scratch);
  return cheap && cached && same ? 0 : 1;
}

}  // namespace
}  // namespace depthkv

int main(int argc, char** argv) try {
  if (argc != 6) {
    fmt::print(stderr, "usage: depthkv_bench_replay MODEL TASK_FOLDER SCRATCH TOKENS ROUNDS\n");
    return 2;
  }
  return depthkv::run(argv[1], argv[2], argv[3], std::atoll(argv[4]), std::atoi(argv[5]));
} catch (const std::exception& error) {
  fmt::print(stderr, "replay_cost: {}\n", error.what());
  return 1;
}
