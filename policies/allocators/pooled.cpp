// SPDX-License-Identifier: Apache-2.0
// pooled: a layer keeps what it has of the model's best entries.   as in KVzip, arXiv:2505.23416, and DefensiveKV's
// layer form, arXiv:2510.13334
// One top-k over the scores of all layers and heads. With adakv heads at alpha = 0 it is exactly that; with other heads
// only the layers' counts are. Protected entries are outside the pool, and every head's best one always stays. Worth
// something only with scores that compare across layers (probabilities, output norms), not with normalised ones. Found
// by searching for the threshold in the sorted heads, so a budget costs layers times log tokens.
#include <algorithm>

#include "depthkv/policy.h"
#include "policies/allocators/limits.h"
#include "policies/allocators/sorted_lists.h"

namespace depthkv {

LayerAllocator make_pooled_layers(Params&) {
  LayerAllocator allocator;
  allocator.prepare = [](const LayerInput& input) -> LayerSplit {
    const std::int64_t skip = std::max(input.protected_per_head, std::min<std::int64_t>(1, input.shape.tokens));
    return [&input, skip, pool = pool_of(input, skip)](Budget budget) {
      const std::int64_t open = budget.entries - skip * input.shape.heads();
      if (open < 0) return split_evenly(input, budget);
      std::vector<std::int64_t> entries = per_layer(input.shape, pool.best(open));
      for (std::size_t l = 0; l < entries.size(); ++l) entries[l] += skip * input.shape.layers[l].kv_heads;
      return entries;
    };
  };
  return allocator;
}

}  // namespace depthkv
