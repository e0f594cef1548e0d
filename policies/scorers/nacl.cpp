// SPDX-License-Identifier: Apache-2.0
// nacl: the best by the attention of proxy rows, and a random share for variety.   Chen et al. 2024, arXiv:2408.03675
// S[j] = sum over the last `proxies` rows t of A[t, j]; the proxies' own positions stay. Of every k entries kept,
// int((1 - random_share) k) are the best by S; the others are drawn from the rest without replacement, with
// probabilities softmax(S / temperature), by taking the largest of log-probability plus Gumbel noise. Head allocators
// compare heads by these perturbed log-probabilities. The authors' code makes proxies, sinks and recent tokens shares
// of the prompt and draws 0.07 of it beside the best 0.12, at temperature 1; proxies = 32 and random_share = 0.2 are
// ours, sinks are a matter of `protect`.
#include <algorithm>
#include <cmath>

#include "depthkv/policy.h"
#include "policies/scorers/group.h"
#include "policies/scorers/noise.h"
#include "policies/scorers/pooling.h"

namespace depthkv {
namespace {

// log softmax(row / temperature) plus Gumbel noise.
void perturb(std::span<float> row, double temperature, const Noise& noise) {
  if (row.empty()) return;
  const auto top = static_cast<double>(*std::max_element(row.begin(), row.end()));
  double sum = 0;
  for (const float s : row) sum += std::exp((static_cast<double>(s) - top) / temperature);
  for (std::size_t j = 0; j < row.size(); ++j) {
    const double log_probability = (static_cast<double>(row[j]) - top) / temperature - std::log(sum);
    row[j] = static_cast<float>(log_probability + noise.gumbel(j));
  }
}

}  // namespace

Scorer make_nacl(Params& params) {
  const auto proxies = params.take_in("proxies", std::int64_t{32}, std::int64_t{1}, std::int64_t{128});
  const double random_share = params.take_in("random_share", 0.2, 0.0, 1.0);
  const double temperature = params.take_in("temperature", 1.0, 1e-6, 1e6);
  const auto seed = static_cast<std::uint64_t>(params.take<std::int64_t>("seed", 0));
  Scorer scorer;
  const Reduction reduction = take_group(params, "mean", scorer.group);
  scorer.depends_on_head_number = true;
  scorer.needs = needs({Feature::window}, proxies);
  scorer.first_share = 1 - random_share;
  scorer.first = [=](const LayerFeatures& layer, const Ops& ops) {
    const Observed seen = last_rows(layer, proxies);
    Tensor scores = reduce_group(ops.column_sums(seen.rows).view(), layer.shape.group(), reduction);
    force_from(scores, seen.before);
    return scores;
  };
  scorer.score = [=, first = scorer.first](const LayerFeatures& layer, const Ops& ops) {
    Tensor scores = first(layer, ops);
    const auto before = static_cast<std::size_t>(layer.tokens - std::min(proxies, layer.tokens));
    for (std::int64_t g = 0; g < scores.heads(); ++g)
      perturb(scores.row(g, 0).first(before), temperature, Noise(seed, layer, g));
    return scores;
  };
  return scorer;
}

}  // namespace depthkv
