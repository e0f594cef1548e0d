// SPDX-License-Identifier: Apache-2.0
#include "policies/allocators/limits.h"

#include <algorithm>
#include <numeric>

namespace depthkv {

LayerLimits layer_limits(const LayerInput& input, Budget budget) {
  LayerLimits limits;
  const auto floors_of = [&](std::int64_t per_head) {
    limits.floors.clear();
    for (const LayerShape& layer : input.shape.layers) limits.floors.push_back(per_head * layer.kv_heads);
    return std::accumulate(limits.floors.begin(), limits.floors.end(), std::int64_t{0});
  };
  for (const LayerShape& layer : input.shape.layers) limits.caps.push_back(layer.kv_heads * input.shape.tokens);
  const std::int64_t least = std::min<std::int64_t>(1, input.shape.tokens);
  if (floors_of(std::max(least, input.protected_per_head)) > budget.entries) floors_of(least);
  return limits;
}

std::vector<std::int64_t> split_evenly(const LayerInput& input, Budget budget) {
  const LayerLimits limits = layer_limits(input, budget);
  const std::vector<double> weights(limits.caps.begin(), limits.caps.end());
  return share_out(budget.entries, weights, limits.floors, limits.caps);
}

}  // namespace depthkv
