// SPDX-License-Identifier: Apache-2.0
// chunk: whole chunks of consecutive positions, the same in all KV heads.   ChunkKV, arXiv:2502.00299
// A chunk's score is the mean over its tokens of the sum over KV heads; the shorter last chunk competes like the
// others, as in kvpress. Budgets stay exact: the last chunk that fits only in part is kept from its first position on,
// where the authors round to whole chunks. The paper's reuse of one layer's choice in the next is left out.
#include <algorithm>

#include "depthkv/policy.h"
#include "policies/structures/stages.h"

namespace depthkv {

Structure make_chunk(Params& params) {
  const auto length = params.take_in("length", std::int64_t{20}, 1, std::int64_t{1} << 20);
  Structure structure;
  structure.rank = [=](const LayerFeatures& layer, const Scorer& scorer, Protect protect, const Ops& ops) {
    const Tensor scores = scorer.score(layer, ops);
    Ranked ranked;
    ranked.scores = Tensor(scores.heads(), 1, scores.columns());
    for (std::int64_t begin = 0; begin < layer.tokens; begin += length) {
      const std::int64_t end = std::min(layer.tokens, begin + length);
      double sum = 0;
      for (std::int64_t g = 0; g < scores.heads(); ++g)
        for (std::int64_t j = begin; j < end; ++j)
          sum += static_cast<double>(scores.row(g, 0)[static_cast<std::size_t>(j)]);
      // Forced entries would overflow; a chunk that holds one is forced.
      const auto mean =
          static_cast<float>(std::clamp(sum / static_cast<double>(end - begin), -1.0 * kForced, 1.0 * kForced));
      for (std::int64_t g = 0; g < scores.heads(); ++g)
        std::fill_n(ranked.scores.row(g, 0).begin() + begin, end - begin, mean);
    }
    // Equal scores go to the lower position, which keeps a chunk's tokens together and in order.
    ranked.ranking = ops.rank(ranked.scores.view(), protect);
    return ranked;
  };
  return structure;
}

}  // namespace depthkv
