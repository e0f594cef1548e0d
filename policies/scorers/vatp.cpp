// SPDX-License-Identifier: Apache-2.0
// vatp: attention received, weighted by the size of what it fetches.   Guo et al. 2024, arXiv:2406.12335
// S[j] = (sum over i of A[i, j]) * |v[j]|_1; the first `sinks` positions always stay (20 in the authors' command).
// base = last400: the mean over the last `rows` rows in place of the sum over all, as their variant on Scissorhands
// has it. norm = l2 is ours. The authors' models have one query head per KV head; groups are reduced by mean here.
#include <algorithm>

#include "depthkv/policy.h"
#include "policies/scorers/group.h"
#include "policies/scorers/pooling.h"

namespace depthkv {

Scorer make_vatp(Params& params) {
  const auto sinks = params.take_in("sinks", std::int64_t{20}, std::int64_t{0}, std::int64_t{1} << 20);
  const bool all = params.take_choice("base", "all", {"all", "last400"}) == "all";
  const auto rows = params.take_in("rows", std::int64_t{400}, std::int64_t{1}, std::int64_t{1} << 20);
  const Norm norm = params.take_choice("norm", "l1", {"l1", "l2"}) == "l1" ? Norm::l1 : Norm::l2;
  Scorer scorer;
  const Reduction reduction = take_group(params, "mean", scorer.group);
  scorer.needs = all ? needs({Feature::column_sums, Feature::values}) : needs({Feature::window, Feature::values}, rows);
  scorer.score = [=](const LayerFeatures& layer, const Ops& ops) {
    const Tensor last = all ? Tensor() : ops.column_sums(last_rows(layer, rows).rows);
    Tensor scores = reduce_group(all ? layer.column_sums : last.view(), layer.shape.group(), reduction);
    const Tensor norms = ops.row_norms(layer.values, norm);
    const float observed = all ? 1.0F : static_cast<float>(std::min(rows, layer.tokens));
    for (std::int64_t g = 0; g < scores.heads(); ++g) {
      const auto row = scores.row(g, 0);
      for (std::size_t j = 0; j < row.size(); ++j) row[j] = row[j] / observed * norms.row(g, 0)[j];
      std::fill_n(row.begin(), std::min(sinks, layer.tokens), kForced);
    }
    return scores;
  };
  return scorer;
}

}  // namespace depthkv
