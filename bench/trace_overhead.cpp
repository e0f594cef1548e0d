// SPDX-License-Identifier: Apache-2.0
// What recording costs: `trace` against a plain prefill of the same tokens, in alternating pairs. Run by
// bench/trace_overhead.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <utility>

#include "bench/long_sample.h"
#include "depthkv/tasks.h"

namespace depthkv {
namespace {

struct Measured {
  std::vector<double> plain;
  std::vector<double> flash;
  std::vector<double> trace;

  // The middle ratio of trace to the faster plain prefill of the same round, and the range.
  std::array<double, 3> ratios() const {
    std::vector<double> ratio;
    for (std::size_t i = 0; i < trace.size(); ++i) ratio.push_back(trace[i] / std::min(plain[i], flash[i]));
    return spread(std::move(ratio));
  }
};

int run(const std::filesystem::path& model_file, const std::filesystem::path& tasks,
        const std::filesystem::path& scratch, std::int64_t tokens, const std::string& attention, int rounds) {
  LlamaModel model({.model = model_file});
  TracePlan plan = long_sample(model, tasks, scratch, tokens, 1);
  plan.attention = attention;
  const std::vector<Token> prompt = make_prompt(model, read_tasks(plan.tasks[0])[0]).tokens;
  Measured measured;
  model.prefill(std::span(prompt).first(256), false);  // pages the weights in
  for (int round = 0; round < rounds; ++round) {
    measured.plain.push_back(seconds_of([&] { model.prefill(prompt, false); }));
    measured.flash.push_back(seconds_of([&] { model.prefill(prompt, true); }));
    const std::filesystem::path out = scratch / "traces";
    measured.trace.push_back(seconds_of([&] { record_traces(model, plan, out, [](auto&&...) {}); }));
    fmt::print("round {}: plain {:.2f} s, with flash attention {:.2f} s, trace {:.2f} s ({:.1f} MiB)\n", round + 1,
               measured.plain.back(), measured.flash.back(), measured.trace.back(),
               static_cast<double>(std::filesystem::file_size(out / "long.h5")) / (1 << 20));
    std::filesystem::remove_all(out);
  }
  const auto [low, middle, high] = measured.ratios();
  const double bar = attention == "none" ? 1.15 : 1.35;
  fmt::print("{} tokens, attention {}: trace / plain prefill = {:.3f} [{:.3f}, {:.3f}] over {} rounds, bar {}\n",
             prompt.size(), attention, middle, low, high, rounds, bar);
  return middle <= bar ? 0 : 1;
}

}  // namespace
}  // namespace depthkv

int main(int argc, char** argv) try {
  if (argc != 7) {
    fmt::print(stderr, "usage: depthkv_bench_trace MODEL TASK_FOLDER SCRATCH TOKENS ATTENTION ROUNDS\n");
    return 2;
  }
  return depthkv::run(argv[1], argv[2], argv[3], std::atoll(argv[4]), argv[5], std::atoi(argv[6]));
} catch (const std::exception& error) {
  fmt::print(stderr, "trace_overhead: {}\n", error.what());
  return 1;
}
