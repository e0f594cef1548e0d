// SPDX-License-Identifier: Apache-2.0
// token: every entry by itself, every KV head its own. What most papers do.
#include "depthkv/policy.h"
#include "policies/structures/stages.h"

namespace depthkv {

Structure make_token(Params&) {
  Structure structure;
  structure.rank = [](const LayerFeatures& layer, const Scorer& scorer, Protect protect, const Ops& ops) {
    Ranked ranked;
    ranked.scores = scorer.score(layer, ops);
    ranked.ranking = order_of(layer, scorer, ranked.scores, protect, ops);
    return ranked;
  };
  return structure;
}

}  // namespace depthkv
