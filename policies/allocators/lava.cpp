// SPDX-License-Identifier: Apache-2.0
// lava: more where scores are spread out.   Shen et al. 2025 (LAVa), arXiv:2509.09754
// Of a layer's scores outside the window, over all heads: p = S / sum S, e = -sum p log p / log(how many). Beyond the
// protected positions the budget goes in proportion to e. Protected and forced entries are outside; negative scores
// count 0. The authors recompute after each layer, which ends at this split, and truncate. Their split over heads is
// adakv's floor.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "depthkv/policy.h"
#include "policies/allocators/limits.h"
#include "policies/allocators/measures.h"

namespace depthkv {
namespace {

double normalised_entropy(const HeadInput& input) {
  std::vector<double> scores;
  for (std::int64_t g = 0; g < input.scores.heads; ++g) {
    for (const float score : open_scores(input, g)) scores.push_back(std::max(0.0, static_cast<double>(score)));
  }
  const double total = std::accumulate(scores.begin(), scores.end(), 0.0);
  if (scores.size() < 2 || total <= 0) return 0;
  double entropy = 0;
  for (const double score : scores) entropy -= score > 0 ? score / total * std::log(score / total) : 0.0;
  return std::max(0.0, entropy) / std::log(static_cast<double>(scores.size()));
}

}  // namespace

LayerAllocator make_lava_layers(Params&) {
  LayerAllocator allocator;
  allocator.prepare = [](const LayerInput& input) -> LayerSplit {
    std::vector<double> entropies;
    for (std::size_t l = 0; l < input.shape.layers.size(); ++l)
      entropies.push_back(normalised_entropy(input.ranked(static_cast<int>(l))));
    return [&input, entropies](Budget budget) { return share_beyond_protected(input, budget, entropies); };
  };
  return allocator;
}

}  // namespace depthkv
