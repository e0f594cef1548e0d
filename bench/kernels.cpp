// SPDX-License-Identifier: Apache-2.0
// Google Benchmark of every op, on the shapes that models have, and of what hidden states are reduced to.
// depthkv_bench --benchmark_filter=rank; where there is a GPU, cuda/OP beside every op, transfers included
#include <benchmark/benchmark.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "kernels/cases.h"
#include "tracer/state_metrics.h"

namespace depthkv {
namespace {

void attention_rows(benchmark::State& state, const Ops& ops, const KernelCase& c) {
  const KernelInputs in(c, 1);
  for (auto _ : state)
    benchmark::DoNotOptimize(ops.attention_rows(in.queries.view(), in.keys.view(), in.positions, {}));
  state.SetItemsProcessed(state.iterations() * c.kv_heads * c.group * c.rows * c.tokens);
}

void attention_sums(benchmark::State& state, const Ops& ops, const KernelCase& c) {
  const KernelInputs in(c, 1);
  std::vector<double> sums(static_cast<std::size_t>(in.queries.heads() * c.tokens));
  for (auto _ : state) {
    ops.attention_sums(in.queries.view(), in.halves(), c.tokens - c.rows, {}, sums);
    benchmark::DoNotOptimize(sums.data());
  }
  state.SetItemsProcessed(state.iterations() * c.kv_heads * c.group * c.rows * c.tokens);
}

void attention_maxima(benchmark::State& state, const Ops& ops, const KernelCase& c) {
  const KernelInputs in(c, 1);
  const std::vector<float> weights(static_cast<std::size_t>(c.rows), 1.0F);
  std::vector<float> maxima(static_cast<std::size_t>(in.queries.heads() * c.tokens));
  for (auto _ : state) {
    ops.attention_maxima(in.queries.view(), in.halves(), c.tokens - c.rows, {}, weights, maxima);
    benchmark::DoNotOptimize(maxima.data());
  }
  state.SetItemsProcessed(state.iterations() * c.kv_heads * c.group * c.rows * c.tokens);
}

void column_sums(benchmark::State& state, const Ops& ops, const KernelCase& c) {
  const KernelInputs in(c, 1);
  for (auto _ : state) benchmark::DoNotOptimize(ops.column_sums(in.attention.view()));
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(in.attention.values().size_bytes()));
}

void row_norms(benchmark::State& state, const Ops& ops, const KernelCase& c) {
  const KernelInputs in(c, 1);
  for (auto _ : state) benchmark::DoNotOptimize(ops.row_norms(in.keys.view(), Norm::l2));
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(in.keys.values().size_bytes()));
}

void projected_norms(benchmark::State& state, const Ops& ops, const KernelCase& c) {
  const KernelInputs in(c, 1);
  for (auto _ : state) benchmark::DoNotOptimize(ops.projected_norms(in.values.view(), in.weights.view()));
  state.SetItemsProcessed(state.iterations() * c.tokens * in.weights.heads() * in.weights.rows() *
                          in.weights.columns());
}

void rank(benchmark::State& state, const Ops& ops, const KernelCase& c) {
  const KernelInputs in(c, 1);
  const Tensor scores = ops.row_norms(in.keys.view(), Norm::l2);
  for (auto _ : state) benchmark::DoNotOptimize(ops.rank(scores.view(), {4, 32}));
  state.SetItemsProcessed(state.iterations() * c.kv_heads * c.tokens);
}

// One KV head: the unit of work that replay hands to a thread.
void accumulate_losses(benchmark::State& state, const Ops& ops, const KernelCase& c) {
  const KernelInputs in(c, 1);
  std::vector<std::uint32_t> ranking(static_cast<std::size_t>(c.tokens));
  std::iota(ranking.begin(), ranking.end(), 0U);
  for (auto _ : state)
    benchmark::DoNotOptimize(
        losses(ops, in.attention.view().head_range(0, c.group), in.values.view().head_range(0, 1), ranking));
  state.SetItemsProcessed(state.iterations() * c.group * c.rows * c.tokens);
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

constexpr std::pair<const char*, void (*)(benchmark::State&, const Ops&, const KernelCase&)> kOps[] = {
    {"attention_rows", attention_rows},
    {"attention_sums", attention_sums},
    {"attention_maxima", attention_maxima},
    {"column_sums", column_sums},
    {"row_norms", row_norms},
    {"projected_norms", projected_norms},
    {"rank", rank},
    {"accumulate_losses", accumulate_losses}};

void add_ops(const std::string& prefix, const Ops& ops) {
  for (const auto& [name, run] : kOps) {
    for (const KernelCase& c : kBenchCases) {
      benchmark::RegisterBenchmark((prefix + name + "/" + c.name).c_str(), [run = run, &ops,
                                                                            c](benchmark::State& state) {
        run(state, ops, c);
      })->Unit(benchmark::kMicrosecond);
    }
  }
}

}  // namespace
}  // namespace depthkv

int main(int argc, char** argv) {
  using depthkv::Device;
  depthkv::add_ops("", depthkv::ops_for(Device::cpu));
  if (depthkv::fastest_device() == Device::cuda) depthkv::add_ops("cuda/", depthkv::ops_for(Device::cuda));
  benchmark::RegisterBenchmark("state_summary", depthkv::state_summary)
      ->Unit(benchmark::kMillisecond)
      ->ArgsProduct({{1000, 4000}, {576, 2048, 4096}});
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
