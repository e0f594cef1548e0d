// SPDX-License-Identifier: Apache-2.0
// oracle: the split with the smallest total loss on judged rows. A bound: it reads what a policy can't know.
// On the lower convex envelopes of the loss curves taking the steepest pieces first is optimal. Where curves aren't
// convex the envelope is a bound of the bound: the split found is then near the best, and never worse than the even
// one. Heads are priced at every count, layers on a grid of budgets and then around what was found there. Where the
// metric has no curves (evidence of a sample without any) the split is even. predicted_loss needs each layer's
// sensitivity; within a layer it is output_error.
#include <cmath>

#include "depthkv/policy.h"
#include "policies/allocators/envelope.h"
#include "policies/allocators/limits.h"
#include "policies/allocators/table.h"

namespace depthkv {
namespace {

// The better one; price(unit, entries) adds up over units.
template <class Price>
std::vector<std::int64_t> better(std::vector<std::int64_t> best, std::vector<std::int64_t> even, const Price& price) {
  double gained = 0;
  for (std::size_t u = 0; u < best.size(); ++u) gained += price(u, even[u]) - price(u, best[u]);
  return gained >= 0 ? best : even;
}

}  // namespace

LayerAllocator make_oracle_layers(Params& params) {
  const std::string who = "layer allocator oracle";
  const Metric metric = *metric_named(params.take_choice("metric", "output_error", replay_metric_names()));
  const PerLayer given = take_per_layer(params, who, "sensitivity", 0, &LayerImportance::sensitivity);
  LayerAllocator allocator;
  allocator.oracle = true;
  allocator.measured_on = given.measured_on();
  if (metric == Metric::predicted_loss && given.values.empty())
    allocator.unavailable = "needs sensitivities; set file=importance.json or sensitivity=LIST";
  allocator.prepare = [=](const LayerInput& input) -> LayerSplit {
    const bool weighted = metric == Metric::predicted_loss;
    if (weighted) given.expect(who, input.shape.layers.size());
    const LayerPrice price = [&input, metric, sensitivity = weighted ? given.values : std::vector<double>()](
                                 std::size_t l, std::int64_t entries) {
      return (sensitivity.empty() ? 1 : sensitivity[l]) *
             input.price(static_cast<int>(l), Rows::judged, metric, entries);
    };
    const std::vector<Curve> curves = priced(input, 1, price);
    return [&input, price, curves, minimum = SteepestFirst(curves)](Budget budget) {
      std::vector<std::int64_t> even = split_evenly(input, budget);
      if (curves.empty()) return even;
      return better(exchanged(minimum.split(budget.entries), curves, price), even, price);
    };
  };
  return allocator;
}

HeadAllocator make_oracle_heads(Params& params) {
  const Metric metric =
      *metric_named(params.take_choice("metric", "output_error", {"output_error", "mass", "evidence"}));
  HeadAllocator allocator;
  allocator.oracle = true;
  allocator.prepare = [=](const HeadInput& input) -> HeadSplit {
    const HeadSize size = size_of(input);
    const auto price = [metric, price = input.price](std::size_t head, std::int64_t kept) {
      return price(Rows::judged, metric, static_cast<std::int64_t>(head), kept);
    };
    std::vector<Curve> curves(size.heads);
    bool known = true;
    for (std::size_t g = 0; g < size.heads; ++g) {
      for (std::int64_t k = 0; k <= size.tokens; ++k) {
        curves[g].push_back({k, price(g, k)});
        known = known && !std::isnan(curves[g].back().loss);
      }
    }
    if (!known) return [size](std::int64_t entries) { return split_evenly(size, entries); };
    return [=, minimum = SteepestFirst(curves)](std::int64_t entries) {
      return better(minimum.split(entries), split_evenly(size, entries), price);
    };
  };
  return allocator;
}

}  // namespace depthkv
