// SPDX-License-Identifier: Apache-2.0
// Orders made of two: what structures and two-stage scorers share.
#pragma once
#include "depthkv/policy.h"

namespace depthkv {

// Of every k entries kept beyond the protected ones, the best int(share * k) of `first` and the best remaining ones of
// `rest`: since int(share * k) rises by at most one with k, kept sets are nested and one order holds them all. Both
// rankings have the protected entries in front.
Ranking merge_stages(const Ranking& first, const Ranking& rest, double share, Protect protect);

// The order of a scorer's entries, its first stage included.
Ranking order_of(const LayerFeatures& layer, const Scorer& scorer, const Tensor& scores, Protect protect,
                 const Ops& ops);

}  // namespace depthkv
