// SPDX-License-Identifier: Apache-2.0
// tova: what the newest token attends to, one set of positions per layer.   Oren et al. 2024, arXiv:2401.06104
// S[j] = mean over all query heads h of the layer of A_h[n - 1, j], the same for every KV head. No pooling, no sinks,
// no window, as in the authors' code; protect_last forces the newest token, as kvpress does. The authors evict at every
// step; this is the form for a prompt.
#include <algorithm>

#include "depthkv/policy.h"
#include "policies/scorers/group.h"
#include "policies/scorers/pooling.h"

namespace depthkv {

Scorer make_tova(Params& params) {
  const bool protect_last = params.take("protect_last", false);
  Scorer scorer;
  scorer.group = "mean";
  scorer.needs = needs({Feature::window}, 1);
  scorer.score = [=](const LayerFeatures& layer, const Ops&) {
    const Tensor all = reduce_group(last_rows(layer, 1).rows, layer.shape.query_heads, Reduction::mean);
    Tensor scores(layer.shape.kv_heads, 1, layer.tokens);
    for (std::int64_t g = 0; g < scores.heads(); ++g) std::ranges::copy(all.row(0, 0), scores.row(g, 0).begin());
    if (protect_last) force_from(scores, layer.tokens - 1);
    return scores;
  };
  return scorer;
}

}  // namespace depthkv
