// SPDX-License-Identifier: Apache-2.0
// simlayer: lazy layers keep sinks and recent positions only.   Zhang et al. 2024 (SimLayerKV), arXiv:2410.13846
// A layer is lazy if the last observed row pays more than `delta` to the first `sinks` and the last `recent` positions,
// mean over query heads. Lazy layers keep as many entries as those are, never more than the even share; the others
// share the rest evenly, and what they have no room for goes back. Which entries are kept is the ranking's matter
// (protect=4+1024 with sink_recent does as the paper). Theirs reads the first generated token's row, which a policy at
// the cut hasn't seen (kvpress reads the last one, too), and leaves the others whole: there the budget is an outcome.
// The authors' delta by model: 0.65 (Llama 2), 0.8 (Mistral), 0.85 (Qwen 2.5), 0.9 (Llama 3).
#include <algorithm>
#include <numeric>

#include "depthkv/policy.h"
#include "policies/allocators/limits.h"

namespace depthkv {

LayerAllocator make_simlayer_layers(Params& params) {
  const double delta = params.take_in("delta", 0.9, 0.0, 1.0);
  const auto sinks = params.take_in("sinks", std::int64_t{4}, 0, std::int64_t{1} << 20);
  const auto recent = params.take_in("recent", std::int64_t{1024}, 0, std::int64_t{1} << 20);
  LayerAllocator allocator;
  allocator.needs = needs({Feature::window}, 1);
  allocator.measure = [=](const LayerFeatures& layer, const Ops&) -> std::vector<double> {
    const std::int64_t first = std::min(sinks, layer.tokens);
    const std::int64_t last = std::min(recent, layer.tokens - first);
    double sum = 0;
    for (std::int64_t h = 0; h < layer.window.heads; ++h) {
      const auto row = layer.window.row(h, layer.window.rows - 1);
      sum = std::accumulate(row.begin(), row.begin() + first, sum);
      sum = std::accumulate(row.begin() + layer.tokens - last, row.begin() + layer.tokens, sum);
    }
    return {sum / static_cast<double>(layer.window.heads)};
  };
  allocator.prepare = [=](const LayerInput& input) -> LayerSplit {
    std::vector<std::optional<std::int64_t>> lazy;
    for (std::size_t l = 0; l < input.shape.layers.size(); ++l) {
      const std::int64_t wanted = input.shape.layers[l].kv_heads * std::min(input.shape.tokens, sinks + recent);
      lazy.push_back(input.measured[l][0] > delta ? std::optional(wanted) : std::nullopt);
    }
    return [&input, lazy](Budget budget) { return share_leanly(budget.entries, lazy, layer_limits(input, budget)); };
  };
  return allocator;
}

}  // namespace depthkv
