// SPDX-License-Identifier: Apache-2.0
// knorm: keys with a small norm attract attention.   Devoto et al. 2024, arXiv:2406.11430
// S[j] = -|k[j]|_2; rotations keep norms, so keys before and after RoPE give the same. All layers are scored alike.
#include "depthkv/policy.h"

namespace depthkv {

Scorer make_knorm(Params&) {
  Scorer scorer;
  scorer.group = "none";
  scorer.needs = needs({Feature::keys});
  scorer.score = [](const LayerFeatures& layer, const Ops& ops) {
    Tensor scores = ops.row_norms(layer.keys, Norm::l2);
    for (float& score : scores.values()) score = -score;
    return scores;
  };
  return scorer;
}

}  // namespace depthkv
