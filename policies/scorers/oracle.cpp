// SPDX-License-Identifier: Apache-2.0
// oracle: the attention that judged rows will pay. A bound: it reads what a policy can't know.
// With group = mean and an even split no other order of entries retains more judged mass.
#include "depthkv/policy.h"
#include "policies/scorers/group.h"

namespace depthkv {

Scorer make_oracle(Params& params) {
  Scorer scorer;
  const Reduction reduction = take_group(params, "mean", scorer.group);
  scorer.needs = needs({Feature::judged});
  scorer.oracle = true;
  scorer.score = [=](const LayerFeatures& layer, const Ops&) {
    return reduce_group(layer.judged_sums, layer.shape.group(), reduction);
  };
  return scorer;
}

}  // namespace depthkv
