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
    return [size = size_of(input)](std::int64_t entries) { return split_evenly(size, entries); };
  };
  return allocator;
}

}  // namespace depthkv
