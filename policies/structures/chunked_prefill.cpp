// SPDX-License-Identifier: Apache-2.0
// chunked_prefill: the cache is scored and pruned in chunks, each by itself and by the same share.   ChunkPress (FINCH,
// doi:10.1162/tacl_a_00716, and kvpress); DepthKV's prefill runs in chunks of 1024 as well.
// An entry's place is its rank among the chunk's m entries, (rank + 1/2) / m, so any budget keeps the same share of
// every chunk up to one entry, and budgets stay exact. A scorer must be able to score a part of the cache by itself.
#include <algorithm>

#include "depthkv/policy.h"
#include "policies/structures/stages.h"

namespace depthkv {

Structure make_chunked_prefill(Params& params) {
  const auto length = params.take_in("length", std::int64_t{1024}, 1, std::int64_t{1} << 20);
  Structure structure;
  structure.positional = true;
  structure.rank = [=](const LayerFeatures& layer, const Scorer& scorer, Protect protect, const Ops& ops) {
    Ranked ranked;
    ranked.scores = Tensor(layer.shape.kv_heads, 1, layer.tokens);
    for (std::int64_t begin = 0; begin < layer.tokens; begin += length) {
      const std::int64_t end = std::min(layer.tokens, begin + length);
      const LayerFeatures chunk = layer.slice(begin, end);
      const Ranking order = order_of(chunk, scorer, scorer.score(chunk, ops), {}, ops);
      for (std::int64_t g = 0; g < order.heads(); ++g) {
        const auto scores = ranked.scores.row(g, 0);
        for (std::int64_t r = 0; r < end - begin; ++r) {
          const auto place = (static_cast<double>(r) + 0.5) / static_cast<double>(end - begin);
          scores[static_cast<std::size_t>(begin) + order.head(g)[static_cast<std::size_t>(r)]] =
              static_cast<float>(1.0 - place);
        }
      }
    }
    ranked.ranking = ops.rank(ranked.scores.view(), protect);
    return ranked;
  };
  return structure;
}

}  // namespace depthkv
