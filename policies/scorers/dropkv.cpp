// SPDX-License-Identifier: Apache-2.0
// dropkv: the exact change of the output when this entry alone is dropped.   openreview MqfNzH3TVH, kvpress #285
// Without entry j row i puts out o_i + A / (1 - A) (o_i - v_j), A = A[i, j], so
// S[j] = sum over the group and the last `window` rows i of (A / (1 - A))^2 |v_j - o_i|^2, o_i = sum over all keys of
// A v. Where j holds all of a row's attention nothing remains and the change is |o_i|^2, as in output_error. window and
// the sum over the group, which makes S the group's squared error before W_O, are ours; neither could be confirmed.
#include "depthkv/policy.h"
#include "policies/scorers/eviction.h"
#include "policies/scorers/group.h"
#include "policies/scorers/pooling.h"

namespace depthkv {

Scorer make_dropkv(Params& params) {
  const std::int64_t window = take_window(params, 64);
  Scorer scorer;
  const Reduction reduction = take_group(params, "sum", scorer.group);
  scorer.needs = needs({Feature::window, Feature::values}, window);
  scorer.score = [=](const LayerFeatures& layer, const Ops&) {
    const Tensor per_head = eviction_errors(last_rows(layer, window).rows, layer.values, layer.tokens, Eviction::alone);
    return reduce_group(per_head.view(), layer.shape.group(), reduction);
  };
  return scorer;
}

}  // namespace depthkv
