// SPDX-License-Identifier: Apache-2.0
// oracle_eviction: the exact error on judged rows if this entry alone were dropped, summed over rows and the group.
// A bound for scorers that price entries one by one: dropkv with judged rows in place of observed ones. What several
// entries cost together is another matter, so no ranking made of it need be the best.
#include "policies/scorers/eviction.h"
#include "policies/scorers/group.h"

namespace depthkv {

Scorer make_oracle_eviction(Params& params) {
  Scorer scorer;
  const Reduction reduction = take_group(params, "sum", scorer.group);
  scorer.oracle = true;
  scorer.needs = needs({Feature::judged});
  scorer.score = [=](const LayerFeatures& layer, const Ops&) {
    const Tensor per_head = eviction_errors(layer.judged, layer.all_values, layer.tokens, Eviction::alone);
    return reduce_group(per_head.view(), layer.shape.group(), reduction);
  };
  return scorer;
}

}  // namespace depthkv
