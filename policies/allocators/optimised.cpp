// SPDX-License-Identifier: Apache-2.0
// optimised: the smallest predicted loss, drawn towards the even split.   ours
// Minimises sum over layers of sensitivity_l * loss_l(b_l) (exact where losses are convex, else on their envelopes);
// then `shrink` of the budget is shared evenly and the rest follows the minimum.
//   file=importance.json  learnt: sensitivities and output errors that `depthkv importance` measured on other samples,
//                         on the model and on judged rows (docs/decisions/017); shrink is 0 then
//   otherwise             the sample's own losses (`metric`) on observed rows, split over heads as the head allocator
//                         in force does; sensitivities from a list, a file with a line per layer, or
//                         1 + depth_weight * l / (L - 1), since an error made late has fewer layers behind it to be
//                         mended in. In a first experiment the bare minimum did worse end to end than the even split.
#include <algorithm>

#include "depthkv/policy.h"
#include "policies/allocators/envelope.h"
#include "policies/allocators/limits.h"
#include "policies/allocators/table.h"

namespace depthkv {
namespace {

constexpr const char* kWho = "layer allocator optimised";

std::vector<double> rising(double depth_weight, std::size_t layers) {
  std::vector<double> weights(layers, 1.0);
  for (std::size_t l = 1; l < layers; ++l)
    weights[l] += depth_weight * static_cast<double>(l) / static_cast<double>(layers - 1);
  return weights;
}

// The curve between its points.
double interpolated(const std::vector<double>& shares, const std::vector<double>& curve, double share) {
  const auto right = std::clamp<std::ptrdiff_t>(std::upper_bound(shares.begin(), shares.end(), share) - shares.begin(),
                                                1, static_cast<std::ptrdiff_t>(shares.size()) - 1);
  const auto i = static_cast<std::size_t>(right);
  const double at = (share - shares[i - 1]) / (shares[i] - shares[i - 1]);
  return curve[i - 1] + at * (curve[i] - curve[i - 1]);
}

LayerPrice learnt_price(const Importance& learnt, const LayerInput& input) {
  return [&learnt, &input](std::size_t l, std::int64_t entries) {
    const double all = static_cast<double>(input.shape.layers[l].kv_heads * input.shape.tokens);
    const LayerImportance& layer = learnt.layers[l];
    return layer.sensitivity * interpolated(learnt.shares, layer.curve, static_cast<double>(entries) / all);
  };
}

}  // namespace

LayerAllocator make_optimised_layers(Params& params) {
  const Metric metric = *metric_named(params.take_choice("metric", "output_error", {"output_error", "mass"}));
  const PerLayer given = take_per_layer(params, kWho, "sensitivity", 0, &LayerImportance::sensitivity);
  const double depth_weight = params.take_in("depth_weight", 1.0, 0.0, 1e6);
  const bool learnt = given.importance.has_value();
  const double shrink = params.take_in("shrink", learnt ? 0.0 : 0.5, 0.0, 1.0);
  LayerAllocator allocator;
  allocator.observed_curves = !learnt;
  allocator.measured_on = given.measured_on();
  allocator.prepare = [=](const LayerInput& input) -> LayerSplit {
    const std::size_t layers = input.shape.layers.size();
    if (!given.values.empty()) given.expect(kWho, layers);
    const std::vector<double> sensitivity = given.values.empty() ? rising(depth_weight, layers) : given.values;
    const LayerPrice own = [&](std::size_t l, std::int64_t entries) {
      return sensitivity[l] * input.price(static_cast<int>(l), Rows::observed, metric, entries);
    };
    const std::int64_t least = std::max<std::int64_t>(1, input.protected_per_head);
    const std::vector<Curve> curves = priced(input, least, learnt ? learnt_price(*given.importance, input) : own);
    return [&input, shrink, least, known = !curves.empty(), minimum = SteepestFirst(curves)](Budget budget) {
      std::vector<std::int64_t> even = split_evenly(input, budget);
      if (!known || budget.entries < std::min(least, input.shape.tokens) * input.shape.heads()) return even;
      const std::vector<std::int64_t> best = minimum.split(budget.entries);
      std::vector<double> weights;
      for (std::size_t l = 0; l < even.size(); ++l)
        weights.push_back(shrink * static_cast<double>(even[l]) + (1 - shrink) * static_cast<double>(best[l]));
      const Limits limits = layer_limits(input, budget);
      return share_out(budget.entries, weights, limits.floors, limits.caps);
    };
  };
  return allocator;
}

}  // namespace depthkv
