// SPDX-License-Identifier: Apache-2.0
// snapkv: attention received from the last `window` rows, pooled over neighbours.   Li et al. 2024, arXiv:2404.14469
// S[j] = pool(mean over the window's rows t of A[t, j]) for j < n - window; the window itself always stays. The
// official code sums the rows: the same order, but what adds a constant to scores (structure critical) or compares them
// with one (threshold) expects kvpress's mean.
// `preset` sets the other parameters' defaults: orig is the official code's (32, 5, avg), kvpress NVIDIA's (64, 5,
// avg), factory KVCache-Factory's (8, 7, max). `order`: pool before or after the group is reduced; they differ for max.
// Average pooling divides by the kernel at the edges too, as all of these do, so position 0 of kernel 5 gets 3/5. The
// official code has every query head choose by itself; groups are reduced here.
#include "depthkv/policy.h"
#include "policies/scorers/group.h"
#include "policies/scorers/pooling.h"

namespace depthkv {

Scorer make_snapkv(Params& params) {
  const std::string preset = params.take_choice("preset", "orig", {"orig", "kvpress", "factory"});
  const std::int64_t window = take_window(params, preset == "orig" ? 32 : preset == "kvpress" ? 64 : 8);
  const std::int64_t kernel = take_kernel(params, "snapkv", preset == "factory" ? 7 : 5);
  const Pool kind =
      params.take_choice("pool", preset == "factory" ? "max" : "avg", {"avg", "max"}) == "avg" ? Pool::avg : Pool::max;
  const bool pool_first = params.take_choice("order", preset == "kvpress" ? "pool_then_group" : "group_then_pool",
                                             {"group_then_pool", "pool_then_group"}) == "pool_then_group";
  Scorer scorer;
  const Reduction reduction = take_group(params, "mean", scorer.group);
  scorer.needs = needs({Feature::window}, window);
  scorer.score = [=](const LayerFeatures& layer, const Ops& ops) {
    const Observed seen = last_rows(layer, window);
    Tensor means = ops.column_sums(seen.rows);
    for (float& x : means.values()) x /= static_cast<float>(seen.rows.rows);
    if (pool_first) pool_heads(means, seen.before, kernel, kind);
    Tensor scores = reduce_group(means.view(), layer.shape.group(), reduction);
    if (!pool_first) pool_heads(scores, seen.before, kernel, kind);
    force_from(scores, seen.before);
    return scores;
  };
  return scorer;
}

}  // namespace depthkv
