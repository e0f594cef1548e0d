// SPDX-License-Identifier: Apache-2.0
// vatp: attention received, weighted by the size of what it fetches.   Guo et al. 2024, arXiv:2406.12335
// S[j] = (sum over i of A[i, j]) * |v[j]|_1; the first `sinks` positions always stay (20 in the authors' command).
// The authors' models have one query head per KV head; groups are reduced by mean here.
#include <algorithm>

#include "depthkv/policy.h"
#include "policies/scorers/group.h"

namespace depthkv {

Scorer make_vatp(Params& params) {
  const auto sinks = params.take_in("sinks", std::int64_t{20}, 0, std::int64_t{1} << 20);
  Scorer scorer;
  const Reduction reduction = take_group(params, "mean", scorer.group);
  scorer.needs = needs({Feature::column_sums, Feature::values});
  scorer.score = [=](const LayerFeatures& layer, const Ops& ops) {
    Tensor scores = reduce_group(layer.column_sums, layer.shape.group(), reduction);
    const Tensor norms = ops.row_norms(layer.values, Norm::l1);
    for (std::int64_t g = 0; g < scores.heads(); ++g) {
      const auto row = scores.row(g, 0);
      for (std::size_t j = 0; j < row.size(); ++j) row[j] *= norms.row(g, 0)[j];
      std::fill_n(row.begin(), std::min(sinks, layer.tokens), kForced);
    }
    return scores;
  };
  return scorer;
}

}  // namespace depthkv
