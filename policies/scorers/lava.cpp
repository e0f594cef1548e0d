// SPDX-License-Identifier: Apache-2.0
// lava: attention of the window, scaled per head by what the head can fetch.   Shen et al. 2025, arXiv:2509.09754
// S[j] = maxpool(mean over the window's rows t of A[t, j]) * max over u < n - window of |v[u]|_1 for j < n - window;
// the window itself always stays. The factor is one number per head: it weighs heads and layers against each other and
// never changes the order inside a head.
#include <algorithm>

#include "depthkv/policy.h"
#include "policies/scorers/group.h"
#include "policies/scorers/pooling.h"

namespace depthkv {

Scorer make_lava(Params& params) {
  const std::int64_t window = take_window(params, 32);
  const std::int64_t kernel = take_kernel(params, "lava", 7);
  Scorer scorer;
  const Reduction reduction = take_group(params, "max", scorer.group);
  scorer.needs = needs({Feature::window, Feature::values}, window);
  scorer.score = [=](const LayerFeatures& layer, const Ops& ops) {
    const auto [rows, before] = last_rows(layer, window);
    Tensor sums = ops.column_sums(rows);
    pool_heads(sums, before, kernel, Pool::max);
    Tensor scores = reduce_group(sums.view(), layer.shape.group(), reduction);
    const Tensor norms = ops.row_norms(layer.values, Norm::l1);
    for (std::int64_t g = 0; g < scores.heads(); ++g) {
      const auto earlier = norms.row(g, 0).first(static_cast<std::size_t>(before));
      if (earlier.empty()) continue;
      const double factor = static_cast<double>(*std::ranges::max_element(earlier)) / static_cast<double>(rows.rows);
      for (float& score : scores.row(g, 0)) score = static_cast<float>(static_cast<double>(score) * factor);
    }
    force_from(scores, before);
    return scores;
  };
  return scorer;
}

}  // namespace depthkv
