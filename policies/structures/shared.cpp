// SPDX-License-Identifier: Apache-2.0
// shared: all KV heads of a layer keep the same positions, ranked by the mean (or sum, or max) of the heads' scores, as
// TOVA (arXiv:2401.06104) and other per-layer methods do. Forced entries of any head stay in all.
#include <algorithm>

#include "depthkv/policy.h"
#include "policies/scorers/group.h"
#include "policies/structures/stages.h"

namespace depthkv {
namespace {

// [H, 1, n] to one row, given to all H heads.
Tensor over_heads(const Tensor& scores, Reduction reduction) {
  Tensor one = reduce_group(scores.view(), static_cast<int>(scores.heads()), reduction);
  for (float& score : one.values()) score = std::min(score, kForced);  // forced ones add up to infinity
  Tensor all(scores.heads(), 1, scores.columns());
  for (std::int64_t g = 0; g < scores.heads(); ++g) std::ranges::copy(one.row(0, 0), all.row(g, 0).begin());
  return all;
}

}  // namespace

Structure make_shared(Params& params) {
  std::string name;
  const Reduction reduction = take_reduction(params, "reduce", "mean", name);
  Structure structure;
  structure.rank = [=](const LayerFeatures& layer, const Scorer& scorer, Protect protect, const Ops& ops) {
    Scorer shared = scorer;
    if (scorer.first) {
      shared.first = [&scorer, reduction](const LayerFeatures& seen, const Ops& with) {
        return over_heads(scorer.first(seen, with), reduction);
      };
    }
    Ranked ranked;
    ranked.scores = over_heads(scorer.score(layer, ops), reduction);
    ranked.ranking = order_of(layer, shared, ranked.scores, protect, ops);
    return ranked;
  };
  return structure;
}

}  // namespace depthkv
