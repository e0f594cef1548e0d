// SPDX-License-Identifier: Apache-2.0
// threshold: an entry stays while its score is at least `tau`, or among the last `window` positions; the budget is what
// comes out of it.   The inference rule of DMS, arXiv:2506.05345, as kvpress borrows it for any scorer.
// Whatever budget was asked for, results state the one achieved. Allocators have no say, nor has the first stage of a
// scorer that has two.
#include <algorithm>

#include "depthkv/policy.h"
#include "policies/structures/stages.h"

namespace depthkv {

Structure make_threshold(Params& params) {
  const double tau = params.take("tau", 0.0);
  const auto window = params.take_in("window", std::int64_t{128}, 0, std::int64_t{1} << 30);
  Structure structure;
  structure.rank = [=](const LayerFeatures& layer, const Scorer& scorer, Protect protect, const Ops& ops) {
    protect.last = std::max(protect.last, window);
    Ranked ranked;
    ranked.scores = scorer.score(layer, ops);
    ranked.ranking = ops.rank(ranked.scores.view(), protect);
    const std::int64_t always = std::min(layer.tokens, protect.first + protect.last);
    for (std::int64_t g = 0; g < ranked.scores.heads(); ++g) {
      const auto scores = ranked.scores.row(g, 0);
      const auto open = ranked.ranking.head(g).subspan(static_cast<std::size_t>(always));
      const auto below = std::partition_point(open.begin(), open.end(),
                                              [&](std::uint32_t j) { return static_cast<double>(scores[j]) >= tau; });
      ranked.outcome.push_back(always + (below - open.begin()));
    }
    return ranked;
  };
  return structure;
}

}  // namespace depthkv
