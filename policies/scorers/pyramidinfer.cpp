// SPDX-License-Identifier: Apache-2.0
// pyramidinfer: attention received from the recent rows, later rows counting more.   Yang et al. 2024, arXiv:2405.12532
// S[j] = mean over the window's rows t of weight_t A[t, j] for j < n - window, weights rising evenly from 1 to
// `distance_weight` (1.2 in the authors' settings for Llama 3); the window itself always stays. From the authors' code;
// the paper was not compared. They average over all heads of a layer, which the structure `shared` does, take a fifth
// of the prompt as window where ours is a number of rows, and drop hidden states layer by layer, which a replay can't
// see. Their share per layer is an allocator's business.
#include "depthkv/policy.h"
#include "policies/scorers/group.h"
#include "policies/scorers/pooling.h"

namespace depthkv {

Scorer make_pyramidinfer(Params& params) {
  const std::int64_t window = take_window(params, 64);
  const double distance_weight = params.take_in("distance_weight", 1.2, 0.0, 1e6);
  Scorer scorer;
  const Reduction reduction = take_group(params, "mean", scorer.group);
  scorer.needs = needs({Feature::window}, window);
  scorer.score = [=](const LayerFeatures& layer, const Ops&) {
    const auto [rows, before] = last_rows(layer, window);
    const auto count = static_cast<double>(rows.rows);
    Tensor per_head(rows.heads, 1, layer.tokens);
    for (std::int64_t h = 0; h < rows.heads; ++h) {
      std::vector<double> sums(static_cast<std::size_t>(before));
      for (std::int64_t t = 0; t < rows.rows; ++t) {
        const double recency = rows.rows > 1 ? static_cast<double>(t) / (count - 1) : 0;
        const double weight = 1 + (distance_weight - 1) * recency;
        for (std::size_t j = 0; j < sums.size(); ++j) sums[j] += weight * static_cast<double>(rows.row(h, t)[j]);
      }
      for (std::size_t j = 0; j < sums.size(); ++j) per_head.row(h, 0)[j] = static_cast<float>(sums[j] / count);
    }
    Tensor scores = reduce_group(per_head.view(), layer.shape.group(), reduction);
    force_from(scores, before);
    return scores;
  };
  return scorer;
}

}  // namespace depthkv
