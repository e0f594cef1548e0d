// SPDX-License-Identifier: Apache-2.0
// finch: attention received from the question.   Corallo and Papotti 2024 (FINCH), doi:10.1162/tacl_a_00716
// S[j] = mean over the question's rows i of A[i, j] * c_i, where c_i = i + 1, the number of keys that row i sees,
// undoes the thinning of long rows; the question itself always stays. parity_bugs: c_i = i, as kvpress counts. Its
// chunks are a structure here, chunked_prefill, which scorers that read attention can't use; keys are not rotated to
// new positions.
#include "depthkv/policy.h"
#include "policies/scorers/group.h"
#include "policies/scorers/pooling.h"

namespace depthkv {

Scorer make_finch(Params& params) {
  const std::int64_t beyond = params.take("parity_bugs", false) ? 0 : 1;
  Scorer scorer;
  const Reduction reduction = take_group(params, "mean", scorer.group);
  scorer.needs = needs({Feature::question});
  scorer.score = [=](const LayerFeatures& layer, const Ops&) {
    const auto [rows, before] = last_rows(layer, layer.question_rows);
    Tensor per_head(layer.shape.query_heads, 1, layer.tokens);
    for (std::int64_t h = 0; h < rows.heads; ++h) {
      std::vector<double> sums(static_cast<std::size_t>(before));
      for (std::int64_t t = 0; t < rows.rows; ++t) {
        const auto visible = static_cast<double>(before + t + beyond);
        for (std::size_t j = 0; j < sums.size(); ++j) sums[j] += static_cast<double>(rows.row(h, t)[j]) * visible;
      }
      for (std::size_t j = 0; j < sums.size() && rows.rows > 0; ++j)
        per_head.row(h, 0)[j] = static_cast<float>(sums[j] / static_cast<double>(rows.rows));
    }
    Tensor scores = reduce_group(per_head.view(), layer.shape.group(), reduction);
    force_from(scores, before);
    return scores;
  };
  return scorer;
}

}  // namespace depthkv
