// SPDX-License-Identifier: Apache-2.0
// obcache: attention squared times the value's squared length, what pruning the value alone would change.   Gu et al.
// 2025 (OBCache), arXiv:2510.07651
// S[j] = sum over the last `window` rows i of A[i, j]^2 |v[j]|_2^2, the paper's value-only saliency; groups by mean, and
// the window is ours (the paper adds up over decoding).
#include "policies/scorers/group.h"
#include "policies/scorers/pooling.h"

namespace depthkv {

Scorer make_obcache(Params& params) {
  const std::int64_t window = take_window(params, 32);
  Scorer scorer;
  const Reduction reduction = take_group(params, "mean", scorer.group);
  scorer.needs = needs({Feature::window, Feature::values}, window);
  scorer.score = [=](const LayerFeatures& layer, const Ops& ops) {
    const View rows = last_rows(layer, window).rows;
    const Tensor lengths = ops.row_norms(layer.values, Norm::l2);
    Tensor per_head(rows.heads, 1, layer.tokens);
    for (std::int64_t h = 0; h < rows.heads; ++h) {
      const auto length = lengths.row(h / layer.shape.group(), 0);
      for (std::size_t j = 0; j < length.size(); ++j) {
        double squares = 0;
        for (std::int64_t t = 0; t < rows.rows; ++t)
          squares += static_cast<double>(rows.row(h, t)[j]) * static_cast<double>(rows.row(h, t)[j]);
        per_head.row(h, 0)[j] =
            static_cast<float>(squares * static_cast<double>(length[j]) * static_cast<double>(length[j]));
      }
    }
    return reduce_group(per_head.view(), layer.shape.group(), reduction);
  };
  return scorer;
}

}  // namespace depthkv
