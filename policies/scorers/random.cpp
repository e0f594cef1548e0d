// SPDX-License-Identifier: Apache-2.0
// random: uniform noise, independent per (sample, layer, KV head, position). The floor that every scorer has to beat.
// Other tools draw the same numbers in every layer; here each entry has its own, whatever order or thread asks for it.
#include "depthkv/policy.h"
#include "policies/scorers/noise.h"

namespace depthkv {

Scorer make_random(Params& params) {
  const auto seed = static_cast<std::uint64_t>(params.take<std::int64_t>("seed", 0));
  Scorer scorer;
  scorer.group = "none";
  scorer.depends_on_head_number = true;
  scorer.score = [=](const LayerFeatures& layer, const Ops&) {
    Tensor scores(layer.shape.kv_heads, 1, layer.tokens);
    for (std::int64_t g = 0; g < scores.heads(); ++g) {
      const Noise noise(seed, layer, g);
      const auto row = scores.row(g, 0);
      for (std::size_t j = 0; j < row.size(); ++j) row[j] = noise.uniform(j);
    }
    return scores;
  };
  return scorer;
}

}  // namespace depthkv
