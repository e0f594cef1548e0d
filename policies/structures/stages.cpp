// SPDX-License-Identifier: Apache-2.0
#include "policies/structures/stages.h"

#include <algorithm>

namespace depthkv {

Ranking merge_stages(const Ranking& first, const Ranking& rest, double share, Protect protect) {
  const std::int64_t tokens = first.tokens();
  const std::int64_t kept_first = std::min(tokens, protect.first + protect.last);
  Ranking merged(first.heads(), tokens);
  for (std::int64_t g = 0; g < first.heads(); ++g) {
    const auto locked = first.head(g);
    const auto others = rest.head(g);
    const auto out = merged.head(g);
    std::vector<bool> taken(static_cast<std::size_t>(tokens), false);
    auto at = static_cast<std::size_t>(kept_first);
    std::copy_n(locked.begin(), at, out.begin());
    std::size_t next_locked = at;
    std::size_t next_other = at;
    for (std::int64_t k = 1; at < out.size(); ++k) {
      const auto quota =
          static_cast<std::size_t>(share * static_cast<double>(k)) + static_cast<std::size_t>(kept_first);
      std::uint32_t chosen = 0;
      // A locked entry that the second stage had chosen already frees a place for the second stage.
      if (next_locked < quota && !taken[locked[next_locked]]) {
        chosen = locked[next_locked++];
      } else {
        if (next_locked < quota) ++next_locked;
        while (taken[others[next_other]]) ++next_other;
        chosen = others[next_other++];
      }
      taken[chosen] = true;
      out[at++] = chosen;
    }
  }
  return merged;
}

Ranking order_of(const LayerFeatures& layer, const Scorer& scorer, const Tensor& scores, Protect protect,
                 const Ops& ops) {
  Ranking ranking = ops.rank(scores.view(), protect);
  if (!scorer.first) return ranking;
  return merge_stages(ops.rank(scorer.first(layer, ops).view(), protect), ranking, scorer.first_share, protect);
}

}  // namespace depthkv
