// SPDX-License-Identifier: Apache-2.0
// h2o: heavy hitters, the entries that received the most attention.   Zhang et al. 2023, arXiv:2306.14048
// S[j] = sum over observed rows i >= j of A[i, j], not divided by the number of rows, so early entries gain.
// The paper's recent half of the budget is a matter of `protect` here. Its models have no groups; ours by mean.
#include "depthkv/policy.h"
#include "policies/scorers/group.h"

namespace depthkv {

Scorer make_h2o(Params& params) {
  Scorer scorer;
  const Reduction reduction = take_group(params, "mean", scorer.group);
  scorer.needs = needs({Feature::column_sums});
  scorer.score = [=](const LayerFeatures& layer, const Ops&) {
    return reduce_group(layer.column_sums, layer.shape.group(), reduction);
  };
  return scorer;
}

}  // namespace depthkv
