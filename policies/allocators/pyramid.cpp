// SPDX-License-Identifier: Apache-2.0
// pyramid: linearly less with depth.   Cai et al. 2024 (PyramidKV), arXiv:2406.02069
// With N entries per head to give beyond the protected ones: the last layer gets N / beta, the first 2N minus that,
// lowered to what there is (the last then rises so that the mean stays N). The official code floors every division and
// falls back to an even split on short prompts; here the real numbers are rounded once, so that the sum is exact.
#include <algorithm>

#include "depthkv/policy.h"
#include "policies/allocators/limits.h"

namespace depthkv {

LayerAllocator make_pyramid_layers(Params& params) {
  const double beta = params.take_in("beta", 20.0, 1.0, 1e6);
  LayerAllocator allocator;
  const auto split = [=](const LayerInput& input, Budget budget) {
    const auto kept = static_cast<double>(std::min(input.protected_per_head, input.shape.tokens));
    const double room = static_cast<double>(input.shape.tokens) - kept;
    const double mean = static_cast<double>(budget.entries) / static_cast<double>(input.shape.heads()) - kept;
    if (mean <= 0) return split_evenly(input, budget);
    const double first = std::min(room, 2 * mean - mean / beta);
    const double last = 2 * mean - first;
    const auto layers = input.shape.layers.size();
    std::vector<double> weights;
    for (std::size_t l = 0; l < layers; ++l) {
      const double depth = layers > 1 ? static_cast<double>(l) / static_cast<double>(layers - 1) : 0.5;
      weights.push_back(input.shape.layers[l].kv_heads * (kept + first + (last - first) * depth));
    }
    const LayerLimits limits = layer_limits(input, budget);
    return share_out(budget.entries, weights, limits.floors, limits.caps);
  };
  allocator.prepare = [=](const LayerInput& input) -> LayerSplit {
    return [&input, split](Budget budget) { return split(input, budget); };
  };
  return allocator;
}

}  // namespace depthkv
