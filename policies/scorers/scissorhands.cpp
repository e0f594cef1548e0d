// SPDX-License-Identifier: Apache-2.0
// scissorhands: what was important often enough stays so.   Liu et al. 2023, arXiv:2305.17118
// form = counter, the paper's: minus the number of the last `history` rows i in which A[i, j] is below uniform,
// 1 / (i + 1). A row before j doesn't count against it. Entries of a head with equal counts are told apart by their
// attention summed over these rows, as a fraction below one count. form = sum (KVCache-Factory): that sum itself, a row
// t rows before the last weighted by decay^t. The recent tokens that the paper keeps are a matter of `protect`. Its
// models have one query head per KV head; `history` is ours.
#include <cmath>

#include "depthkv/policy.h"
#include "policies/scorers/group.h"
#include "policies/scorers/pooling.h"

namespace depthkv {
namespace {

// What every entry gets from the rows that see it: of_row(position of the row, rows after it) makes the value of an
// attention.
template <class OfRow>
Tensor add_up(const Observed& seen, std::int64_t tokens, const OfRow& of_row) {
  Tensor out(seen.rows.heads, 1, tokens);
  for (std::int64_t h = 0; h < out.heads(); ++h) {
    std::vector<double> sums(static_cast<std::size_t>(tokens));
    for (std::int64_t t = 0; t < seen.rows.rows; ++t) {
      const auto row = seen.rows.row(h, t);
      const std::int64_t position = seen.before + t;
      const auto value = of_row(position, seen.rows.rows - 1 - t);
      for (std::size_t j = 0; j <= static_cast<std::size_t>(position); ++j) sums[j] += value(row[j]);
    }
    for (std::size_t j = 0; j < sums.size(); ++j) out.row(h, 0)[j] = static_cast<float>(sums[j]);
  }
  return out;
}

// Adds to every score its head's rank by `sums`, scaled to [0, step): it decides between equal scores only.
void break_ties(Tensor& scores, const Tensor& sums, double step, const Ops& ops) {
  const Ranking order = ops.rank(sums.view(), {});
  const auto tokens = static_cast<double>(scores.columns());
  for (std::int64_t g = 0; g < scores.heads(); ++g) {
    double behind = tokens;
    for (const std::uint32_t j : order.head(g)) {
      behind -= 1;
      float& score = scores.row(g, 0)[j];
      score = static_cast<float>(static_cast<double>(score) + step * behind / tokens);
    }
  }
}

}  // namespace

Scorer make_scissorhands(Params& params) {
  const bool counter = params.take_choice("form", "counter", {"counter", "sum"}) == "counter";
  const auto history = params.take_in("history", std::int64_t{64}, std::int64_t{1}, std::int64_t{1} << 20);
  const double decay = params.take_in("decay", 1.0, 0.0, 1.0);
  Scorer scorer;
  const Reduction reduction = take_group(params, "mean", scorer.group);
  scorer.needs = needs({Feature::window}, history);
  scorer.score = [=](const LayerFeatures& layer, const Ops& ops) {
    const int group = layer.shape.group();
    const Observed seen = last_rows(layer, history);
    const auto weighted = [&](std::int64_t, std::int64_t after) {
      return
          [weight = std::pow(decay, static_cast<double>(after))](float a) { return weight * static_cast<double>(a); };
    };
    const Tensor sums = reduce_group(add_up(seen, layer.tokens, weighted).view(), group, reduction);
    if (!counter) return sums;
    const auto minus_below_uniform = [](std::int64_t position, std::int64_t) {
      return [uniform = static_cast<float>(1.0 / static_cast<double>(position + 1))](float a) {
        return a < uniform ? -1.0 : 0.0;
      };
    };
    Tensor scores = reduce_group(add_up(seen, layer.tokens, minus_below_uniform).view(), group, reduction);
    break_ties(scores, sums, reduction == Reduction::mean ? 1.0 / group : 1.0, ops);
    return scores;
  };
  return scorer;
}

}  // namespace depthkv
