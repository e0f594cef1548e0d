// SPDX-License-Identifier: Apache-2.0
// leverage: keys that the others can't make up for.   Chari and Van Durme 2025 (Compactor), arXiv:2507.08143
// X: keys before rotation minus their mean, through a Gaussian sketch of `sketch` dimensions over sqrt(sketch) (0: no
// sketch). S[j] = x_j (X^T X + jitter I)^-1 x_j^T, then shifted and scaled to mean 0 and deviation 1 over all heads and
// positions, as in kvpress. The sketch is the same for all heads of a layer.
#include "policies/scorers/compaction.h"

namespace depthkv {

Scorer make_leverage(Params& params) {
  const LeverageOptions options = take_leverage(params);
  Scorer scorer;
  scorer.group = "none";
  scorer.needs = needs({Feature::unrotated_keys});
  scorer.score = [=](const LayerFeatures& layer, const Ops&) { return leverage_scores(layer, options); };
  return scorer;
}

}  // namespace depthkv
