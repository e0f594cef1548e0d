// SPDX-License-Identifier: Apache-2.0
// noncausal: attention received inside a chunk when every row sees all of it.   Compactor, arXiv:2507.08143
// Per chunk P = softmax over the chunk's keys of q . k, without the usual scale as in kvpress; S[j] = mean over the
// group of sum over the chunk's rows i of P[i, j], times |v[j]|_2, averaged over 3 neighbours (the edges' missing ones
// count as 0), then to mean 0 and deviation 1 over all heads and positions. parity_bugs pads the last chunk as kvpress
// does: keys of padding have logit -1e-9 and rows of padding add to the sums.
#include "policies/scorers/compaction.h"

namespace depthkv {

Scorer make_noncausal(Params& params) {
  const NoncausalOptions options = take_noncausal(params);
  Scorer scorer;
  scorer.group = "mean";
  scorer.needs = needs({Feature::queries, Feature::keys, Feature::values});
  scorer.score = [=](const LayerFeatures& layer, const Ops& ops) { return noncausal_scores(layer, options, ops); };
  return scorer;
}

}  // namespace depthkv
