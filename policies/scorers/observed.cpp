// SPDX-License-Identifier: Apache-2.0
// observed: attention received per row that can see the entry.   "ObservedAttention" of NVIDIA/kvpress
// S[j] = mean over the group of (sum over i >= j of A[i, j]) / (n - j). Not H2O, which doesn't divide: here the last
// entries, seen by few rows, gain.
#include "depthkv/policy.h"
#include "policies/scorers/group.h"

namespace depthkv {

Scorer make_observed(Params& params) {
  Scorer scorer;
  const Reduction reduction = take_group(params, "mean", scorer.group);
  scorer.needs = needs({Feature::column_sums});
  scorer.score = [=](const LayerFeatures& layer, const Ops&) {
    Tensor scores = reduce_group(layer.column_sums, layer.shape.group(), reduction);
    for (std::int64_t g = 0; g < scores.heads(); ++g) {
      const auto row = scores.row(g, 0);
      for (std::size_t j = 0; j < row.size(); ++j) row[j] /= static_cast<float>(row.size() - j);
    }
    return scores;
  };
  return scorer;
}

}  // namespace depthkv
