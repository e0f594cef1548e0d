// SPDX-License-Identifier: Apache-2.0
// Google Benchmark of every op, on the cases of tests/kernels/cases.h, and of what hidden states are reduced to. Rates
// of flops and bytes are exact counts over the processor time, or the time until the GPU is done. depthkv_bench
// --benchmark_filter=rank/h32d64; where there is a GPU, cuda/OP beside every op, transfers included
#include <benchmark/benchmark.h>

#include <algorithm>
#include <random>
#include <string>

#include "bench/op_work.h"
#include "tracer/state_metrics.h"

namespace depthkv {
namespace {

// Those of one case at a time, since inputs are large and benchmarks run case by case.
const std::vector<OpWork>& works_for(const KernelCase& c, Device device) {
  static std::pair<std::string, Device> of;
  static std::vector<OpWork> works;
  if (of != std::pair<std::string, Device>(c.name, device)) {
    works.clear();
    works = works_of(c, device);
    of = {c.name, device};
  }
  return works;
}

void run_op(benchmark::State& state, const KernelCase& c, Device device, std::size_t index) {
  const OpWork& work = works_for(c, device)[index];
  for (auto _ : state) work.run();
  const auto per_iteration = benchmark::Counter::kIsIterationInvariantRate;
  state.counters["bytes"] = benchmark::Counter(work.bytes, per_iteration, benchmark::Counter::kIs1024);
  if (work.flops > 0) state.counters["flops"] = benchmark::Counter(work.flops, per_iteration);
}

// One stage of one layer, with its spectrum: [tokens, dimensions].
void state_summary(benchmark::State& state) {
  const std::int64_t rows = state.range(0);
  const std::int64_t width = state.range(1);
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> states(static_cast<std::size_t>(rows * width));
  for (float& x : states) x = normal(random);
  const ReadStates read = [&](std::int64_t first, std::span<float> out) {
    std::copy_n(states.begin() + first * width, out.size(), out.begin());
  };
  for (auto _ : state) benchmark::DoNotOptimize(summarise_states(read, rows, width, true));
}

void add_ops(const std::string& prefix, Device device) {
  for (const KernelCase& c : kBenchCases) {
    for (std::size_t i = 0; i < std::size(kOpNames); ++i) {
      auto* op = benchmark::RegisterBenchmark((prefix + std::string(kOpNames[i]) + "/" + c.name).c_str(),
                                              [c, device, i](benchmark::State& state) { run_op(state, c, device, i); });
      op->Unit(benchmark::kMicrosecond);
      if (device == Device::cuda) op->UseRealTime();  // the processor waits
    }
  }
}

}  // namespace
}  // namespace depthkv

int main(int argc, char** argv) {
  using depthkv::Device;
  depthkv::add_ops("", Device::cpu);
  if (depthkv::fastest_device() == Device::cuda) depthkv::add_ops("cuda/", Device::cuda);
  benchmark::RegisterBenchmark("state_summary", depthkv::state_summary)
      ->Unit(benchmark::kMillisecond)
      ->ArgsProduct({{1000, 4000}, {576, 2048, 4096}});
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
