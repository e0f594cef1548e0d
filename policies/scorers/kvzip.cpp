// SPDX-License-Identifier: Apache-2.0
// kvzip: the most attention received while the model repeats the context.   Kim et al. 2025 (KVzip), arXiv:2505.23416
// S[j] = max over the group and the fed rows i of A[i, j], the softmax over the first keys, those of j's chunk and
// those fed so far. plus: of A[i, j] |v[j] W_O| / |u[i]| in L2 norms, u the attention's input after its norm (KVzip+,
// kvpress). Only the context is pruned, as in the authors' code: what frames it and the question always stay.
// parity_bugs: of the frame before the context, kvpress gives the first four positions 1 and the rest 0, so that the
// rest goes first. Meant for layers = pooled with heads = adakv at alpha = 0.
#include <algorithm>

#include "depthkv/policy.h"
#include "depthkv/trace.h"
#include "policies/scorers/group.h"
#include "policies/scorers/pooling.h"

namespace depthkv {
namespace {

Tensor weighed_by_output(const LayerFeatures& layer) {
  Tensor scores(layer.shape.query_heads, 1, layer.tokens);
  for (std::int64_t h = 0; h < scores.heads(); ++h)
    std::ranges::transform(layer.repeat_per_input.row(h, 0), layer.output_norms_l2.row(h, 0), scores.row(h, 0).begin(),
                           std::multiplies<>());
  return scores;
}

}  // namespace

Scorer make_kvzip(Params& params) {
  const bool plus = params.take("plus", false);
  const bool parity_bugs = params.take("parity_bugs", false);
  Scorer scorer;
  scorer.group = "max";
  scorer.needs = plus ? needs({Feature::repeated, Feature::output_norms}) : needs({Feature::repeated});
  scorer.score = [=](const LayerFeatures& layer, const Ops&) {
    const Tensor weighed = plus ? weighed_by_output(layer) : Tensor();
    Tensor scores = reduce_group(plus ? weighed.view() : layer.repeat_chunk, layer.shape.group(), Reduction::max);
    for (std::int64_t g = 0; g < scores.heads(); ++g) {
      const auto frame = scores.row(g, 0).first(static_cast<std::size_t>(layer.frame_rows));
      std::ranges::fill(frame, parity_bugs ? 0.0F : kForced);
      if (parity_bugs) std::fill_n(frame.begin(), std::min(kRepeatSinks, layer.frame_rows), 1.0F);
    }
    force_from(scores, layer.tokens - layer.question_rows);
    return scores;
  };
  return scorer;
}

}  // namespace depthkv
