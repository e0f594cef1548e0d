// SPDX-License-Identifier: Apache-2.0
// What replay knows about every verified policy, layer by layer, beside what the model did: for trying predictors. CSV
// on stdout. usage: depthkv_layer_losses RUN
#include <fmt/format.h>

#include <map>

#include "cli/plan.h"
#include "depthkv/error.h"
#include "depthkv/report.h"
#include "replay/layer_pass.h"

namespace depthkv {
namespace {

void print_policy(const SampleResult& sample, const Candidate& candidate, std::size_t index, double kl,
                  const RankedSample& ranked, const Allocation& allocation) {
  for (std::size_t l = 0; l < allocation.kept.size(); ++l) {
    const RankedLayer& layer = ranked.layers()[l];
    const std::vector<std::int64_t>& kept = allocation.kept[l];
    std::int64_t entries = 0;
    for (const std::int64_t count : kept) entries += count;
    fmt::print("{},{},{},{},{},{},{},{:.9g},{:.9g},{:.9g}\n", sample.id, sample.task, index, candidate.role,
               candidate.choice.keep, l,
               static_cast<double>(entries) / static_cast<double>(kept.size()) / static_cast<double>(sample.tokens),
               layer.loss(Rows::judged, Metric::output_error, kept), layer.loss(Rows::judged, Metric::mass, kept), kl);
  }
}

int run(const std::filesystem::path& folder) {
  const Registry registry = builtin_policies();
  Plan plan = load_plan(folder / "plan.yaml", {}, registry);
  ResultTable results = read_results_csv(plan.replay, registry, folder / "results.csv");
  results.plan.cache = plan.traces / ".curves";
  const Verification verification = read_verify_csv(results, *plan.verify, folder / "verify.csv");
  std::map<std::size_t, std::map<std::size_t, double>> kl;  // [sample][candidate]
  for (const VerifyRow& row : verification.rows) kl[row.sample][row.candidate] = row.kl;
  fmt::print("sample,task,policy,role,keep,layer,share,output_error,mass,kl\n");
  const TraceSet traces = open_trace_set(plan.traces);
  for (const auto& [s, of_sample] : kl) {
    const Trace trace = Trace::open(traces.files[s]);
    SampleCurves curves(trace, results.plan, results.policies);
    curves.run(std::vector<bool>(results.policies.rankers.size(), true));
    for (const auto& [c, value] : of_sample) {
      const Candidate& candidate = verification.candidates[c];
      const PolicyIndex policy = candidate.choice.policy;
      const bool by_keep = results.policies.rankers[policy.ranker].scorer.uses_keep;
      const RankedSample ranked =
          curves.load({policy.ranker, by_keep ? std::optional<std::size_t>(candidate.keep_index) : std::nullopt});
      const std::vector<HeadSplit> heads = ranked.head_splits(results.policies.head_allocators[policy.head_allocator],
                                                              curves.measured_by_heads(policy.head_allocator));
      const RankedSample::Allocator allocator(ranked, results.policies, policy,
                                              curves.measured_by_layers(policy.layer_allocator), heads);
      print_policy(results.samples[s], candidate, c, value, ranked, allocator.at(candidate.choice.keep));
    }
  }
  return 0;
}

}  // namespace
}  // namespace depthkv

int main(int argc, char** argv) try {
  if (argc != 2) {
    fmt::print(stderr, "usage: depthkv_layer_losses RUN\n");
    return 2;
  }
  return depthkv::run(argv[1]);
} catch (const std::exception& error) {
  fmt::print(stderr, "layer_losses: {}\n", error.what());
  return 1;
}
