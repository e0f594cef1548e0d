// SPDX-License-Identifier: Apache-2.0
// sink_recent: the first `sinks` positions, then the most recent ones.   Xiao et al. 2023, arXiv:2309.17453
// Keeping k entries keeps the sinks and the last k - sinks. The paper (StreamingLLM) renumbers positions inside the
// cache; here keys keep theirs.
#include "depthkv/policy.h"

namespace depthkv {

Scorer make_sink_recent(Params& params) {
  const auto sinks = params.take_in("sinks", std::int64_t{4}, 0, std::int64_t{1} << 20);
  Scorer scorer;
  scorer.group = "none";
  scorer.score = [=](const LayerFeatures& layer, const Ops&) {
    Tensor scores(layer.shape.kv_heads, 1, layer.tokens);
    for (std::int64_t g = 0; g < scores.heads(); ++g) {
      for (std::int64_t j = 0; j < layer.tokens; ++j) {
        scores.row(g, 0)[static_cast<std::size_t>(j)] = j < sinks ? kForced : static_cast<float>(j);
      }
    }
    return scores;
  };
  return scorer;
}

}  // namespace depthkv
