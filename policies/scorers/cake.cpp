// SPDX-License-Identifier: Apache-2.0
// cake: attention that is high, or changes much over the window.   Qin et al. 2025, arXiv:2503.12491
// S[j] = avgpool(mean over the window's rows t of A[t, j] + gamma * unbiased variance over t of A[t, j]) for
// j < n - window; the window itself always stays. Every query head is pooled, then groups are reduced. The authors skip
// pruning where the budget and the window hold the prompt; budgets are exact here.
#include "depthkv/policy.h"
#include "policies/scorers/group.h"
#include "policies/scorers/pooling.h"

namespace depthkv {

Scorer make_cake(Params& params) {
  const std::int64_t window = take_window(params, 32);
  const double gamma = params.take_in("gamma", 200.0, 0.0, 1e9);
  const std::int64_t kernel = take_kernel(params, "cake", 5);
  Scorer scorer;
  const Reduction reduction = take_group(params, "mean", scorer.group);
  scorer.needs = needs({Feature::window}, window);
  scorer.score = [=](const LayerFeatures& layer, const Ops&) {
    const auto [rows, before] = last_rows(layer, window);
    const auto count = static_cast<double>(rows.rows);
    Tensor per_head(rows.heads, 1, layer.tokens);
    for (std::int64_t h = 0; h < rows.heads; ++h) {
      std::vector<double> mean(static_cast<std::size_t>(before));
      std::vector<double> squares(mean.size());
      for (std::int64_t t = 0; t < rows.rows; ++t)
        for (std::size_t j = 0; j < mean.size(); ++j) mean[j] += static_cast<double>(rows.row(h, t)[j]) / count;
      for (std::int64_t t = 0; t < rows.rows; ++t) {
        for (std::size_t j = 0; j < mean.size(); ++j) {
          const double deviation = static_cast<double>(rows.row(h, t)[j]) - mean[j];
          squares[j] += deviation * deviation;
        }
      }
      for (std::size_t j = 0; j < mean.size(); ++j) {
        const double variance = count > 1 ? squares[j] / (count - 1) : 0;
        per_head.row(h, 0)[j] = static_cast<float>(mean[j] + gamma * variance);
      }
    }
    pool_heads(per_head, before, kernel, Pool::avg);
    Tensor scores = reduce_group(per_head.view(), layer.shape.group(), reduction);
    force_from(scores, before);
    return scores;
  };
  return scorer;
}

}  // namespace depthkv
