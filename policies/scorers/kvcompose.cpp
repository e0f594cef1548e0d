// SPDX-License-Identifier: Apache-2.0
// kvcompose: the most attention received when the context is fed again.   Akulov et al. 2025 (KVCompose),
// arXiv:2509.05165
// m[h][j] = max over the rows that repeat the context of A[i, j], the softmax over the whole cache; S = mean over the
// group of m, plus the mean of that over the layer's KV heads (across). The question, which the authors' cache doesn't
// hold yet, always stays. Here requests to repeat stand between context and repetition, and a long context is repeated
// in chunks that don't see each other; kvpress feeds all of it at once, its frame, too. Meant for layers = kvcompose.
#include "depthkv/policy.h"
#include "policies/scorers/group.h"
#include "policies/scorers/pooling.h"

namespace depthkv {

Scorer make_kvcompose(Params& params) {
  const bool across = params.take("across", true);
  Scorer scorer;
  const Reduction reduction = take_group(params, "mean", scorer.group);
  scorer.needs = needs({Feature::repeated});
  scorer.score = [=](const LayerFeatures& layer, const Ops&) {
    Tensor scores = reduce_group(layer.repeat_cache, layer.shape.group(), reduction);
    for (std::size_t j = 0; across && j < static_cast<std::size_t>(layer.tokens); ++j) {
      double sum = 0;
      for (std::int64_t g = 0; g < scores.heads(); ++g) sum += static_cast<double>(scores.row(g, 0)[j]);
      const auto mean = static_cast<float>(sum / static_cast<double>(scores.heads()));
      for (std::int64_t g = 0; g < scores.heads(); ++g) scores.row(g, 0)[j] += mean;
    }
    force_from(scores, layer.tokens - layer.question_rows);
    return scores;
  };
  return scorer;
}

}  // namespace depthkv
