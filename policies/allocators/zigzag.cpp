// SPDX-License-Identifier: Apache-2.0
// zigzag: more where more entries are needed to hold the scores' mass.   Zhong et al. 2024 (ZigZagKV), arXiv:2412.09036
// LMBA_l = mean over heads of the least number of entries whose scores reach `tau` of the head's total; B_l = `bound`
// times the even share plus the rest in proportion to LMBA_l. Protected and forced entries are left out of the mass,
// which forced ones would be all of; the budget counts them. No official code; `bound` is from a pull request to
// kvpress.
#include <numeric>

#include "depthkv/policy.h"
#include "policies/allocators/limits.h"
#include "policies/allocators/measures.h"

namespace depthkv {

LayerAllocator make_zigzag_layers(Params& params) {
  const double tau = params.take_in("tau", 0.9, 0.0, 1.0);
  const double bound = params.take_in("bound", 0.2, 0.0, 1.0);
  LayerAllocator allocator;
  allocator.prepare = [=](const LayerInput& input) -> LayerSplit {
    std::vector<double> shares;  // entries per head, in even shares
    for (std::size_t l = 0; l < input.shape.layers.size(); ++l)
      shares.push_back(minimal_entries(input.ranked(static_cast<int>(l)), tau));
    const double total = std::accumulate(shares.begin(), shares.end(), 0.0);
    for (double& share : shares)
      share = total > 0 ? bound + (1 - bound) * share * static_cast<double>(shares.size()) / total : 1.0;
    return [&input, shares](Budget budget) { return share_per_head(input, budget, shares); };
  };
  return allocator;
}

}  // namespace depthkv
