// SPDX-License-Identifier: Apache-2.0
// cake: more where attention is spread out and shifts from row to row.   Qin et al. 2025 (CAKE), arXiv:2503.12491
// Beyond the protected positions a layer's share is E^(1/tau1) V^(1/tau2): E the entropy of the last `window` rows over
// the columns before them, V the variance of these columns over the rows, both summed over query heads. The authors
// tune tau for each model and budget (0.4 to 2.3) and fall back to 1, 1, our default. Their code prunes nothing while
// the prompt fits into capacity plus window, truncates, and repairs the sum once; here the sum is always exact. Their
// cascade cuts layers again as later ones come in, which ends at the same split.
#include <algorithm>
#include <cmath>

#include "depthkv/policy.h"
#include "policies/allocators/limits.h"
#include "policies/allocators/measures.h"

namespace depthkv {

LayerAllocator make_cake_layers(Params& params) {
  const auto window = params.take_in("window", std::int64_t{32}, 1, 128);
  const double tau1 = params.take_in("tau1", 1.0, 0.1, 100.0);
  const double tau2 = params.take_in("tau2", 1.0, 0.1, 100.0);
  LayerAllocator allocator;
  allocator.needs = needs({Feature::window}, window);
  allocator.measure = [=](const LayerFeatures& layer, const Ops&) -> std::vector<double> {
    const AttentionSpread spread = attention_spread(layer, window);
    return {spread.entropy, spread.variance};
  };
  allocator.prepare = [=](const LayerInput& input) -> LayerSplit {
    std::vector<double> preferences;
    for (const std::vector<double>& spread : input.measured)
      preferences.push_back(std::pow(spread[0], 1 / tau1) * std::pow(spread[1], 1 / tau2));
    return [&input, preferences](Budget budget) { return share_beyond_protected(input, budget, preferences); };
  };
  return allocator;
}

}  // namespace depthkv
