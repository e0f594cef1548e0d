// SPDX-License-Identifier: Apache-2.0
// h2o: heavy hitters, the entries that received the most attention.   Zhang et al. 2023, arXiv:2306.14048
// S[j] = sum over observed rows i >= j of A[i, j], not divided by the number of rows, so early entries gain.
// Of every k entries kept, int(recent_ratio * k) are the most recent ones (0.5 in the authors' runs); at 0 recents are
// a matter of `protect` alone. The paper has multi-head attention only; groups by mean.
#include <numeric>

#include "policies/scorers/group.h"

namespace depthkv {

Scorer make_h2o(Params& params) {
  const double recent_ratio = params.take_in("recent_ratio", 0.0, 0.0, 1.0);
  Scorer scorer;
  const Reduction reduction = take_group(params, "mean", scorer.group);
  scorer.needs = needs({Feature::column_sums});
  scorer.score = [=](const LayerFeatures& layer, const Ops&) {
    return reduce_group(layer.column_sums, layer.shape.group(), reduction);
  };
  if (recent_ratio > 0) {
    scorer.first_share = recent_ratio;
    scorer.first = [](const LayerFeatures& layer, const Ops&) {
      Tensor recency(layer.shape.kv_heads, 1, layer.tokens);
      for (std::int64_t g = 0; g < recency.heads(); ++g) {
        const auto row = recency.row(g, 0);
        std::iota(row.begin(), row.end(), 0.0F);
      }
      return recency;
    };
  }
  return scorer;
}

}  // namespace depthkv
