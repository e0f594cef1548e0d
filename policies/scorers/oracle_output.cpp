// SPDX-License-Identifier: Apache-2.0
// oracle_output: A^2 |v[j] - o|^2 on judged rows, summed over rows and the group: the output error of dropping the
// entry, to first order, without renormalising by what little the row keeps if it is nearly all. The saliency of
// OBCache (arXiv:2510.07651) around the output, on judged rows. A bound of what output-aware scorers can know.
#include "policies/scorers/eviction.h"
#include "policies/scorers/group.h"

namespace depthkv {

Scorer make_oracle_output(Params& params) {
  Scorer scorer;
  const Reduction reduction = take_group(params, "sum", scorer.group);
  scorer.oracle = true;
  scorer.needs = needs({Feature::judged});
  scorer.score = [=](const LayerFeatures& layer, const Ops&) {
    const Tensor per_head = eviction_errors(layer.judged, layer.all_values, layer.tokens, Eviction::share);
    return reduce_group(per_head.view(), layer.shape.group(), reduction);
  };
  return scorer;
}

}  // namespace depthkv
