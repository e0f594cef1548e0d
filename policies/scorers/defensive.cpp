// SPDX-License-Identifier: Apache-2.0
// defensive: the worst case over rows instead of the average.   DefensiveKV, Feng et al. 2025, arXiv:2510.13334
// Rows of the window: every row over the positions before it is average-pooled and rescaled to the sum it had; the
// maximum over the group and the rows is the worst case, raised to the head's mean where below. S[j] = worst case *
// N_g[j] / (sum over KV heads of N[j]), with N_g[j] the group's mean of |v W_O|_1. The smallest set that holds the
// share `mass` of the mean attention comes first, best first. The window itself always stays. Kept as the authors' code
// has it: from `mass` it takes off what is meant to be the window's own attention, but measured after the window was
// cut off, so it is that of the `window` positions before it, one number for the layer. Unlike it: the set includes the
// entry that reaches the share, where theirs stops short of it, and it is limited by the budget alone, since what comes
// first is kept first.
#include <algorithm>

#include "depthkv/policy.h"
#include "policies/scorers/group.h"
#include "policies/scorers/pooling.h"

namespace depthkv {
namespace {

constexpr double kLocked = 1e30;  // times an entry's attention: above any score, below kForced

// Largest pooled attention of any row and query head of the group, at least the head's mean: [Hkv, 1, n].
Tensor worst_case(const LayerFeatures& layer, const Observed& seen, std::int64_t kernel) {
  Tensor worst(layer.shape.kv_heads, 1, layer.tokens);
  const auto before = static_cast<std::size_t>(seen.before);
  for (std::int64_t h = 0; h < seen.rows.heads; ++h) {
    const auto top = worst.row(h / layer.shape.group(), 0).first(before);
    for (std::int64_t t = 0; t < seen.rows.rows; ++t) {
      const auto row = seen.rows.row(h, t).first(before);
      std::vector<float> pooled(row.begin(), row.end());
      pool(pooled, seen.before, kernel, Pool::avg);
      double sum = 0;
      double pooled_sum = 0;
      for (std::size_t j = 0; j < before; ++j) {
        sum += static_cast<double>(row[j]);
        pooled_sum += static_cast<double>(pooled[j]);
      }
      const double scale = pooled_sum > 0 ? sum / pooled_sum : 0;
      for (std::size_t j = 0; j < before; ++j)
        top[j] = std::max(top[j], static_cast<float>(static_cast<double>(pooled[j]) * scale));
    }
  }
  for (std::int64_t g = 0; g < worst.heads() && before > 0; ++g) {
    const auto row = worst.row(g, 0).first(before);
    double sum = 0;
    for (const float a : row) sum += static_cast<double>(a);
    const auto mean = static_cast<float>(sum / static_cast<double>(before));
    for (float& a : row) a = std::max(a, mean);
  }
  return worst;
}

// Each KV head's share of the layer's output norm at a position; 0 where no head puts out anything.
void weigh_by_output(Tensor& scores, const LayerFeatures& layer) {
  const Tensor norms = reduce_group(layer.output_norms_l1, layer.shape.group(), Reduction::mean);
  for (std::size_t j = 0; j < static_cast<std::size_t>(layer.tokens); ++j) {
    double all = 0;
    for (std::int64_t g = 0; g < norms.heads(); ++g) all += static_cast<double>(norms.row(g, 0)[j]);
    for (std::int64_t g = 0; g < norms.heads(); ++g) {
      float& score = scores.row(g, 0)[j];
      score =
          all > 0 ? static_cast<float>(static_cast<double>(score) * static_cast<double>(norms.row(g, 0)[j]) / all) : 0;
    }
  }
}

// The mean over heads of the attention of the `window` positions before the window.
double window_bias(const Tensor& mean, std::int64_t before, std::int64_t window) {
  double sum = 0;
  for (std::int64_t g = 0; g < mean.heads(); ++g)
    for (std::int64_t j = std::max<std::int64_t>(0, before - window); j < before; ++j)
      sum += static_cast<double>(mean.row(g, 0)[static_cast<std::size_t>(j)]);
  return sum / static_cast<double>(mean.heads());
}

// Puts the smallest set of a head that holds `share` of its mean attention above everything else.
void lock(std::span<float> scores, std::span<const float> mean, std::span<const std::uint32_t> order, double share) {
  double total = 0;
  for (const float a : mean) total += static_cast<double>(a);
  double held = 0;
  for (const std::uint32_t j : order) {
    if (held >= share * total) return;
    held += static_cast<double>(mean[j]);
    scores[j] = static_cast<float>(kLocked * static_cast<double>(mean[j]));
  }
}

}  // namespace

Scorer make_defensive(Params& params) {
  const std::int64_t window = take_window(params, 32);
  const std::int64_t kernel = take_kernel(params, "defensive", 5);
  const double mass = params.take_in("mass", 0.9, 0.0, 1.0);
  Scorer scorer;
  scorer.group = "max";
  scorer.needs = needs({Feature::window, Feature::output_norms}, window);
  scorer.score = [=](const LayerFeatures& layer, const Ops& ops) {
    const Observed seen = last_rows(layer, window);
    const auto before = static_cast<std::size_t>(seen.before);
    Tensor scores = worst_case(layer, seen, kernel);
    weigh_by_output(scores, layer);
    Tensor mean = reduce_group(ops.column_sums(seen.rows).view(), layer.shape.group(), Reduction::mean);
    for (float& a : mean.values()) a /= static_cast<float>(seen.rows.rows);
    const double share = mass - window_bias(mean, seen.before, window);
    const Ranking order = ops.rank(mean.view().first_columns(seen.before), {});
    for (std::int64_t g = 0; g < scores.heads(); ++g)
      lock(scores.row(g, 0).first(before), mean.row(g, 0).first(before), order.head(g), share);
    force_from(scores, seen.before);
    return scores;
  };
  return scorer;
}

}  // namespace depthkv
