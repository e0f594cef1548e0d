// SPDX-License-Identifier: Apache-2.0
// Numbers about a layer that more than one allocator goes by.
#pragma once
#include "depthkv/policy.h"

namespace depthkv {

// Mean over the cached positions of cos(x, x + attention(x)), x the layer's input (LayerFeatures::cosines).
double mean_cosine(const LayerFeatures& layer);

// Of the last `window` rows over the columns before them, all query heads together: -sum A log(A + 1e-10), and the sum
// over columns of the unbiased variance over the rows (CAKE, arXiv:2503.12491).
struct AttentionSpread {
  double entropy = 0;
  double variance = 0;
};
AttentionSpread attention_spread(const LayerFeatures& layer, std::int64_t window);

// A head's scores in its order, without the protected entries and those that the scorer forces: what the windows of
// most papers leave.
std::vector<float> open_scores(const HeadInput& input, std::int64_t head);

// Mean over heads of the least number of open entries whose scores (negative ones count 0) reach `tau` of their total
// (LMBA of ZigZagKV, arXiv:2412.09036). 0 where there is no total.
double minimal_entries(const HeadInput& input, double tau);

}  // namespace depthkv
