// SPDX-License-Identifier: Apache-2.0
// kvcompose: the best composite tokens of the model.   Akulov et al. 2025 (KVCompose), arXiv:2509.05165
// A layer's t-th composite token is the t-th best entry of each of its heads; its score is their mean. A layer keeps as
// many as it has among the model's best. force_first: the first layer's scores become the highest of all layers at each
// t, so that no layer gets more; the authors' code does so. Protected positions are outside, and each layer's first
// composite token always stays. Heads share a length: that is uniform heads.
#include <algorithm>
#include <numeric>

#include "depthkv/policy.h"
#include "policies/allocators/limits.h"
#include "policies/allocators/sorted_lists.h"

namespace depthkv {
namespace {

std::vector<float> composite(const HeadInput& input, std::int64_t skip) {
  std::vector<double> sums(static_cast<std::size_t>(input.scores.columns - skip));
  for (std::int64_t g = 0; g < input.scores.heads; ++g) {
    const std::vector<float> scores = falling_scores(input, g, skip);
    for (std::size_t t = 0; t < sums.size(); ++t) sums[t] += static_cast<double>(scores[t]);
  }
  std::vector<float> means(sums.size());
  std::ranges::transform(sums, means.begin(),
                         [&](double sum) { return static_cast<float>(sum / static_cast<double>(input.scores.heads)); });
  return means;
}

}  // namespace

LayerAllocator make_kvcompose_layers(Params& params) {
  const bool force_first = params.take("force_first", true);
  LayerAllocator allocator;
  allocator.prepare = [=](const LayerInput& input) -> LayerSplit {
    const std::int64_t skip = std::max(input.protected_per_head, std::min<std::int64_t>(1, input.shape.tokens));
    std::vector<std::vector<float>> scores;
    for (std::size_t l = 0; l < input.shape.layers.size(); ++l)
      scores.push_back(composite(input.ranked(static_cast<int>(l)), skip));
    for (std::size_t l = 1; force_first && l < scores.size(); ++l) {
      for (std::size_t t = 0; t < scores[0].size(); ++t) scores[0][t] = std::max(scores[0][t], scores[l][t]);
    }
    SortedLists lists;
    for (std::size_t l = 0; l < scores.size(); ++l) lists.add(scores[l], input.shape.layers[l].kv_heads);
    return [&input, skip, lists](Budget budget) {
      const std::int64_t open = budget.entries - skip * input.shape.heads();
      if (open < 0) return split_evenly(input, budget);
      std::vector<std::int64_t> entries = lists.best(open);
      for (std::size_t l = 0; l < entries.size(); ++l) entries[l] += skip * input.shape.layers[l].kv_heads;
      return entries;
    };
  };
  return allocator;
}

}  // namespace depthkv
