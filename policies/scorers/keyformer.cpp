// SPDX-License-Identifier: Apache-2.0
// keyformer: attention under Gumbel noise, which spreads it over more keys.   Adnan et al. 2024, arXiv:2403.09054
// S[j] = sum over the window's rows t of softmax over j of (log A[t, j] + noise) / tau, with noise of its own for every
// (query head, row, key); log A differs from the logits by a number per row, which the softmax takes out. The form for
// a prompt: the authors' code sums over all its rows at tau = 1 and goes on while answering, tau rising by 0.01 a step;
// here it is the last `window` rows. Its recent 30 % of the budget are a matter of `protect`. Groups by mean, where the
// authors' models have one query head per KV head.
#include <algorithm>
#include <cmath>

#include "depthkv/policy.h"
#include "policies/scorers/group.h"
#include "policies/scorers/noise.h"
#include "policies/scorers/pooling.h"

namespace depthkv {
namespace {

// Adds the softmax of one row's perturbed logits. `position` is the row's; the noise depends on it and the key's.
void add_row(std::span<const float> attention, std::int64_t position, double tau, const Noise& noise,
             std::vector<double>& sums) {
  std::vector<double> logits(attention.size(), -INFINITY);
  double top = -INFINITY;
  for (std::size_t j = 0; j < logits.size(); ++j) {
    if (!(attention[j] > 0)) continue;
    const std::uint64_t pair = (static_cast<std::uint64_t>(position) << 32U) + j;
    logits[j] = (std::log(static_cast<double>(attention[j])) + noise.gumbel(pair)) / tau;
    top = std::max(top, logits[j]);
  }
  if (!std::isfinite(top)) return;
  double total = 0;
  for (double& logit : logits) {
    logit = std::exp(logit - top);
    total += logit;
  }
  for (std::size_t j = 0; j < logits.size(); ++j) sums[j] += logits[j] / total;
}

}  // namespace

Scorer make_keyformer(Params& params) {
  const std::int64_t window = take_window(params, 32);
  const double tau = params.take_in("tau", 1.0, 1e-3, 1e6);
  const auto seed = static_cast<std::uint64_t>(params.take<std::int64_t>("seed", 0));
  Scorer scorer;
  const Reduction reduction = take_group(params, "mean", scorer.group);
  scorer.depends_on_head_number = true;
  scorer.needs = needs({Feature::window}, window);
  scorer.score = [=](const LayerFeatures& layer, const Ops&) {
    const auto [rows, before] = last_rows(layer, window);
    Tensor per_head(rows.heads, 1, layer.tokens);
    for (std::int64_t h = 0; h < rows.heads; ++h) {
      const Noise noise(seed, layer, h);
      std::vector<double> sums(static_cast<std::size_t>(layer.tokens));
      for (std::int64_t t = 0; t < rows.rows; ++t) add_row(rows.row(h, t), before + t, tau, noise, sums);
      std::ranges::transform(sums, per_head.row(h, 0).begin(), [](double sum) { return static_cast<float>(sum); });
    }
    return reduce_group(per_head.view(), layer.shape.group(), reduction);
  };
  return scorer;
}

}  // namespace depthkv
