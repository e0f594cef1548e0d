// SPDX-License-Identifier: Apache-2.0
// critical: of a head's budget the first half goes to the scorer's best, the rest to the entries whose score times
// output norm is largest.   CriticalKV, arXiv:2502.03805
// N_g[j] = mean over the group's heads h of |v_g[j] W_O^h|_1; the second stage ranks by (S + epsilon) N. Works with any
// scorer; with a head allocator such as adakv the heads' shares follow the scorer's own scores (CriticalAdaKV). The
// authors recommend scores that are not negative.
#include <algorithm>

#include "depthkv/policy.h"
#include "policies/scorers/group.h"
#include "policies/structures/stages.h"

namespace depthkv {

Structure make_critical(Params& params) {
  const double share = params.take_in("first_stage", 0.5, 0.0, 1.0);
  const double epsilon = params.take_in("epsilon", 1e-4, 0.0, 1e6);
  Structure structure;
  structure.needs = needs({Feature::output_norms});
  structure.rank = [=](const LayerFeatures& layer, const Scorer& scorer, Protect protect, const Ops& ops) {
    Ranked ranked;
    ranked.scores = scorer.score(layer, ops);
    Tensor refined = reduce_group(layer.output_norms_l1, layer.shape.group(), Reduction::mean);
    for (std::int64_t g = 0; g < refined.heads(); ++g) {
      const auto row = refined.row(g, 0);
      const auto base = ranked.scores.row(g, 0);
      for (std::size_t j = 0; j < row.size(); ++j)
        row[j] = base[j] >= kForced
                     ? kForced
                     : static_cast<float>((static_cast<double>(base[j]) + epsilon) * static_cast<double>(row[j]));
    }
    const Ranking first = order_of(layer, scorer, ranked.scores, protect, ops);
    ranked.ranking = merge_stages(first, ops.rank(refined.view(), protect), share, protect);
    return ranked;
  };
  return structure;
}

}  // namespace depthkv
