// SPDX-License-Identifier: Apache-2.0
// depthkv: more where a layer's importance is higher.   arXiv:2604.24647
// importance: one number per layer, or, left out, a replayed single-layer ablation: the loss on observed rows when only
// this layer is pruned at the global keep. It is signed, normalised over layers, and mapped to weights; the budget
// follows the weights, within [floor, ceiling] times the even share. The paper doesn't print its normalisation and map:
// they are parameters, the defaults are ours.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "depthkv/error.h"
#include "depthkv/policy.h"
#include "depthkv/stats.h"
#include "policies/allocators/limits.h"

namespace depthkv {
namespace {

// Over layers: mean 0 and deviation 1, range [0, 1], mid-free rank / (L - 1), or as it is. Constant input gives all 0.
std::vector<double> normalised(std::vector<double> x, const std::string& how) {
  const auto count = static_cast<double>(x.size());
  const auto [low, high] = std::minmax_element(x.begin(), x.end());
  if (how == "none") return x;
  if (*low == *high) return std::vector<double>(x.size(), 0.0);
  double shift = *low;
  double scale = *high - *low;
  if (how == "rank") {
    const std::vector<double> raw = x;
    for (double& value : x) {
      const double own = value;
      value = static_cast<double>(std::count_if(raw.begin(), raw.end(), [&](double other) { return other < own; })) /
              (count - 1);
    }
    return x;
  }
  if (how == "zscore") {
    shift = mean(x);
    scale = std::sqrt(std::accumulate(x.begin(), x.end(), 0.0,
                                      [&](double sum, double v) { return sum + (v - shift) * (v - shift); }) /
                      count);
  }
  for (double& value : x) value = (value - shift) / scale;
  return x;
}

}  // namespace

LayerAllocator make_depthkv_layers(Params& params) {
  const auto given = params.take<std::vector<double>>("importance", {});
  const bool by_mass = params.take_choice("metric", "output_error", {"output_error", "mass"}) == "mass";
  const auto sign = static_cast<double>(params.take_in("sign", std::int64_t{1}, -1, 1));
  const std::string how = params.take_choice("normalise", "zscore", {"zscore", "minmax", "rank", "none"});
  const bool softmax = params.take_choice("map", "softmax", {"softmax", "shift"}) == "softmax";
  const double temperature = params.take_in("temperature", 2.0, 1e-3, 1e3);
  const double floor = params.take_in("floor", 0.25, 0.0, 1.0);
  const double ceiling = params.take_in("ceiling", 4.0, 1.0, 1e6);
  LayerAllocator allocator;
  allocator.observed_curves = given.empty();
  const auto split = [=](const LayerInput& input, Budget budget) {
    const std::vector<std::int64_t> even = split_evenly(input, budget);
    const auto layers = even.size();
    std::vector<double> importance = given;
    if (given.empty()) {
      for (std::size_t l = 0; l < layers; ++l) {
        importance.push_back(
            input.price(static_cast<int>(l), Rows::observed, by_mass ? Metric::mass : Metric::output_error, even[l]));
      }
    } else if (given.size() != layers) {
      throw InputError(
          fmt::format("layer allocator depthkv: importance has {} numbers, the model has {} layers that can be pruned; "
                      "give one for each",
                      given.size(), layers));
    }
    for (double& value : importance) value *= sign;
    std::vector<double> weights = normalised(importance, how);
    const auto [low, high] = std::minmax_element(weights.begin(), weights.end());
    const double lowest = *low;
    const double highest = *high;
    LayerLimits limits = layer_limits(input, budget);
    for (std::size_t l = 0; l < layers; ++l) {
      // shift: the least important layer gets weight 1, the others 1 plus their distance to it.
      weights[l] = softmax ? std::exp((weights[l] - highest) / temperature) : 1 + weights[l] - lowest;
      weights[l] *= static_cast<double>(limits.caps[l]);
      const auto share = static_cast<double>(even[l]);
      limits.floors[l] = std::clamp(static_cast<std::int64_t>(floor * share), limits.floors[l], even[l]);
      limits.caps[l] =
          std::clamp(static_cast<std::int64_t>(std::ceil(std::min(ceiling * share, 9e15))), even[l], limits.caps[l]);
    }
    return share_out(budget.entries, weights, limits.floors, limits.caps);
  };
  allocator.prepare = [=](const LayerInput& input) -> LayerSplit {
    return [&input, split](Budget budget) { return split(input, budget); };
  };
  return allocator;
}

}  // namespace depthkv
