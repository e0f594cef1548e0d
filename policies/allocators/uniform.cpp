// SPDX-License-Identifier: Apache-2.0
// uniform: the same share of every layer, the same count of every head. What all others are compared with.
#include "depthkv/policy.h"
#include "policies/allocators/limits.h"

namespace depthkv {

LayerAllocator make_uniform_layers(Params&) {
  LayerAllocator allocator;
  allocator.prepare = [](const LayerInput& input) -> LayerSplit {
    return [&input](Budget budget) { return split_evenly(input, budget); };
  };
  return allocator;
}

HeadAllocator make_uniform_heads(Params&) {
  HeadAllocator allocator;
  allocator.prepare = [](const HeadInput& input) -> HeadSplit {
    const auto heads = static_cast<std::size_t>(input.scores.heads);
    const std::int64_t tokens = input.scores.columns;
    return [=](std::int64_t entries) {
      const std::vector<double> equal(heads, 1.0);
      return share_out(entries, equal, std::vector<std::int64_t>(heads, 0), std::vector<std::int64_t>(heads, tokens));
    };
  };
  return allocator;
}

}  // namespace depthkv
