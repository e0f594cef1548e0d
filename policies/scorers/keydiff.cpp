// SPDX-License-Identifier: Apache-2.0
// keydiff: keys that point elsewhere than the average key.   Park et al. 2025, arXiv:2504.15364
// S[j] = -cos(k[j], mean over the positions u of k[u] / |k[u]|), keys after rotation as in kvpress. The paper runs it
// block by block under a memory cap: structure block. A zero vector's cosine counts as 0.
#include <cmath>

#include "depthkv/policy.h"

namespace depthkv {

Scorer make_keydiff(Params&) {
  Scorer scorer;
  scorer.group = "none";
  scorer.needs = needs({Feature::keys});
  scorer.score = [](const LayerFeatures& layer, const Ops& ops) {
    const Tensor norms = ops.row_norms(layer.keys, Norm::l2);
    Tensor scores(layer.keys.heads, 1, layer.tokens);
    for (std::int64_t g = 0; g < scores.heads(); ++g) {
      const auto norm = norms.row(g, 0);
      std::vector<double> anchor(static_cast<std::size_t>(layer.keys.columns));
      const auto inverse = [&](std::size_t j) { return norm[j] > 0 ? 1.0 / static_cast<double>(norm[j]) : 0.0; };
      for (std::size_t j = 0; j < norm.size(); ++j) {
        const auto key = layer.keys.row(g, static_cast<std::int64_t>(j));
        for (std::size_t c = 0; c < anchor.size(); ++c) anchor[c] += static_cast<double>(key[c]) * inverse(j);
      }
      double length = 0;
      for (const double x : anchor) length += x * x;
      length = length > 0 ? std::sqrt(length) : 1;
      for (std::size_t j = 0; j < norm.size(); ++j) {
        const auto key = layer.keys.row(g, static_cast<std::int64_t>(j));
        double dot = 0;
        for (std::size_t c = 0; c < anchor.size(); ++c) dot += static_cast<double>(key[c]) * anchor[c];
        scores.row(g, 0)[j] = static_cast<float>(-dot * inverse(j) / length);
      }
    }
    return scores;
  };
  return scorer;
}

}  // namespace depthkv
