// SPDX-License-Identifier: Apache-2.0
// optimised: the smallest predicted loss, drawn towards the even split.   ours
// Minimises sum over layers of sensitivity_l * loss_l(b_l), the losses measured on observed rows and split over heads
// as the head allocator in force does (exact where they are convex, else on their envelopes); then `shrink` of the
// budget is shared evenly and the rest follows the minimum. Sensitivities: a list, a file with a line per layer, or
// 1 + depth_weight * l / (L - 1), since an error made late has fewer layers behind it to be mended in. The defaults
// come from a first experiment in which the bare minimum did worse end to end than the even split.
#include <algorithm>

#include "depthkv/policy.h"
#include "policies/allocators/envelope.h"
#include "policies/allocators/limits.h"
#include "policies/allocators/table.h"

namespace depthkv {
namespace {

std::vector<double> rising(double depth_weight, std::size_t layers) {
  std::vector<double> weights(layers, 1.0);
  for (std::size_t l = 1; l < layers; ++l)
    weights[l] += depth_weight * static_cast<double>(l) / static_cast<double>(layers - 1);
  return weights;
}

}  // namespace

LayerAllocator make_optimised_layers(Params& params) {
  const std::string who = "layer allocator optimised";
  const Metric metric = params.take_choice("metric", "output_error", {"output_error", "mass"}) == "mass"
                            ? Metric::mass
                            : Metric::output_error;
  const PerLayer given = take_per_layer(params, who, "sensitivity", 0);
  const double depth_weight = params.take_in("depth_weight", 1.0, 0.0, 1e6);
  const double shrink = params.take_in("shrink", 0.5, 0.0, 1.0);
  LayerAllocator allocator;
  allocator.observed_curves = true;
  allocator.prepare = [=](const LayerInput& input) -> LayerSplit {
    const std::size_t layers = input.shape.layers.size();
    if (!given.values.empty()) given.expect(who, layers);
    const std::vector<double> sensitivity = given.values.empty() ? rising(depth_weight, layers) : given.values;
    const std::int64_t least = std::max<std::int64_t>(1, input.protected_per_head);
    std::vector<Curve> curves = priced(input, Rows::observed, metric, least);
    for (std::size_t l = 0; l < curves.size(); ++l) {
      for (Point& point : curves[l]) point.loss *= sensitivity[l];
    }
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
