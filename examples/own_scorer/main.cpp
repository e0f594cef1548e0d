// SPDX-License-Identifier: Apache-2.0
// own_scorer TRACES OUT: replays a scorer that DepthKV doesn't have beside some that it has, and reports like
// `depthkv replay`.
#include <depthkv/error.h>
#include <depthkv/registry.h>
#include <depthkv/replay.h>
#include <depthkv/report.h>
#include <depthkv/trace.h>

#include <cmath>
#include <filesystem>
#include <iostream>

using namespace depthkv;

namespace {

// How far an entry's value lies from the origin: keeps those that can move the output most.
Scorer make_value_norm(Params& params) {
  const double power = params.take_in("power", 2.0, 0.1, 10.0);
  Scorer scorer;
  scorer.needs = needs({Feature::values});  // recorded for every position; nothing else is loaded for it
  scorer.group = "none";                    // one value per KV head: no query heads to reduce
  scorer.score = [=](const LayerFeatures& layer, const Ops&) {
    Tensor scores(layer.shape.kv_heads, 1, layer.tokens);
    for (std::int64_t g = 0; g < scores.heads(); ++g) {
      for (std::int64_t j = 0; j < scores.columns(); ++j) {
        double sum = 0;
        for (const float x : layer.values.row(g, j)) sum += std::pow(std::abs(static_cast<double>(x)), power);
        scores.row(g, 0)[static_cast<std::size_t>(j)] = static_cast<float>(std::pow(sum, 1 / power));
      }
    }
    return scores;
  };
  return scorer;
}

void compare(const std::filesystem::path& traces, const std::filesystem::path& out) {
  Registry registry = builtin_policies();
  registry.add(Entry<Scorer>{"value_norm", "large value norms", "", make_value_norm, "O(n d)"});
  ReplayPlan plan;
  plan.scorers = {{"value_norm", {{"power", 1.0}}, ""}, {"value_norm", {}, ""}, {"knorm", {}, ""}, {"snapkv", {}, ""}};
  plan.layer_allocators = {{"uniform", {}, ""}, {"pyramid", {}, ""}};
  plan.head_allocators = {{"uniform", {}, ""}, {"adakv", {}, ""}};
  plan.protect = {{4, 8}};
  plan.keep = {0.2, 0.5};
  const Progress quiet = [](auto&&...) {};
  const ResultTable results = replay(open_trace_set(traces), plan, registry, quiet);
  std::filesystem::create_directories(out);
  write_results_csv(results, out / "results.csv");
  write_report_html(results, {}, "value_norm, a scorer of examples/own_scorer", out / "report.html");
  std::cout << results_table(results, Metric::output_error, 6);
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 3) throw InputError("usage: own_scorer TRACES OUT");
  compare(argv[1], argv[2]);
  return 0;
} catch (const std::exception& error) {
  std::cerr << "own_scorer: " << error.what() << '\n';
  return 1;
}
