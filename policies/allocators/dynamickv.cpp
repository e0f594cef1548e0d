// SPDX-License-Identifier: Apache-2.0
// dynamickv: a layer's share of the best entries of the model.   Zhou et al. 2024 (DynamicKV), arXiv:2412.14838
// With N entries per head to give beyond the protected ones: B_l in proportion to how many of the N * heads best scored
// entries are layer l's, of each head the best rmax * N at most (10 in the authors' code). Theirs updates after every
// fourth layer with what it has seen, over-allocating meanwhile, divides counts as integers and gives what that loses
// to the last layer; and its scores are per query head. Here it is the definition, once, over KV heads.
#include <algorithm>

#include "depthkv/policy.h"
#include "policies/allocators/limits.h"
#include "policies/allocators/sorted_lists.h"

namespace depthkv {

LayerAllocator make_dynamickv_layers(Params& params) {
  const double rmax = params.take_in("rmax", 10.0, 1.0, 1e6);
  LayerAllocator allocator;
  allocator.prepare = [=](const LayerInput& input) -> LayerSplit {
    const std::int64_t kept = input.protected_per_head;
    return [&input, kept, rmax, pool = pool_of(input, kept)](Budget budget) {
      const std::int64_t open = std::max<std::int64_t>(0, budget.entries - kept * input.shape.heads());
      const double mean = static_cast<double>(open) / static_cast<double>(input.shape.heads());
      const auto most = static_cast<std::int64_t>(std::max(1.0, rmax * mean));
      const std::vector<std::int64_t> counts = per_layer(input.shape, pool.best(open, {}, most));
      std::vector<double> per_head;
      for (std::size_t l = 0; l < counts.size(); ++l)
        per_head.push_back(static_cast<double>(counts[l]) / input.shape.layers[l].kv_heads);
      return share_beyond_protected(input, budget, per_head);
    };
  };
  return allocator;
}

}  // namespace depthkv
