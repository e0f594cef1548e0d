// SPDX-License-Identifier: Apache-2.0
// compactor: lambda times leverage plus non-causal attention.   Chari and Van Durme 2025, arXiv:2507.08143
// Both halves (scorers leverage and noncausal) see the positions between the first 8 and the last 4 only; those 12 get
// the largest score. lambda: 0 means the share that is pruned, as in kvpress, so that the order depends on the budget.
#include <algorithm>

#include "policies/scorers/compaction.h"

namespace depthkv {

Scorer make_compactor(Params& params) {
  const auto first = params.take_in("sinks", std::int64_t{8}, 0, std::int64_t{1} << 20);
  const auto last = params.take_in("recent", std::int64_t{4}, 0, std::int64_t{1} << 20);
  const double lambda = params.take_in("lambda", 0.0, 0.0, 1e6);
  const LeverageOptions leverage = take_leverage(params);
  const NoncausalOptions noncausal = take_noncausal(params);
  Scorer scorer;
  scorer.group = "mean";
  scorer.uses_keep = lambda == 0;
  scorer.needs = needs({Feature::unrotated_keys, Feature::queries, Feature::keys, Feature::values});
  scorer.score = [=](const LayerFeatures& layer, const Ops& ops) {
    Tensor scores(layer.keys.heads, 1, layer.tokens);
    if (layer.tokens <= first + last) return scores;
    const LayerFeatures middle = layer.slice(first, layer.tokens - last);
    const double weight = lambda > 0 ? lambda : 1 - layer.keep;
    const Tensor outliers = leverage_scores(middle, leverage);
    const Tensor attention = noncausal_scores(middle, noncausal, ops);
    float top = -kForced;
    for (std::int64_t g = 0; g < scores.heads(); ++g) {
      for (std::size_t j = 0; j < static_cast<std::size_t>(middle.tokens); ++j) {
        const double sum =
            weight * static_cast<double>(outliers.row(g, 0)[j]) + static_cast<double>(attention.row(g, 0)[j]);
        scores.row(g, 0)[static_cast<std::size_t>(first) + j] = static_cast<float>(sum);
        top = std::max(top, static_cast<float>(sum));
      }
    }
    for (std::int64_t g = 0; g < scores.heads(); ++g) {
      const auto row = scores.row(g, 0);
      std::fill_n(row.begin(), first, top);
      std::fill(row.end() - last, row.end(), top);
    }
    return scores;
  };
  return scorer;
}

}  // namespace depthkv
