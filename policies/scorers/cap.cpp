// SPDX-License-Identifier: Apache-2.0
// cap: what the entry adds to the capacity of the values that future queries can tell apart.   CapKV, arXiv:2604.25975
// a: the query head's mean query before rotation, turned by the rotation averaged over the next `horizon` positions.
// w[j] = exp(tau (c[j] - max c)), c[j] = cos(a, k[j]); M = I + sum over j of (w[j] + epsilon) v[j] v[j]^T;
// S[j] = mean over the group of w[j] v[j]^T M^-1 v[j], everything over the positions beyond the sinks, which stay. As
// in kvpress, but that the mean query counts the sinks' rows.
#include <algorithm>
#include <cmath>

#include "policies/scorers/cholesky.h"
#include "policies/scorers/future.h"

namespace depthkv {
namespace {

double cosine(std::span<const double> a, std::span<const float> b) {
  double dot = 0;
  double aa = 0;
  double bb = 0;
  for (std::size_t c = 0; c < a.size(); ++c) {
    dot += a[c] * static_cast<double>(b[c]);
    aa += a[c] * a[c];
    bb += static_cast<double>(b[c]) * static_cast<double>(b[c]);
  }
  return aa > 0 && bb > 0 ? dot / std::sqrt(aa * bb) : 0;
}

}  // namespace

Scorer make_cap(Params& params) {
  const double tau = params.take_in("tau", 5.0, 0.0, 1e3);
  const auto horizon = params.take_in("horizon", std::int64_t{512}, 1, std::int64_t{1} << 20);
  const auto sinks = params.take_in("sinks", std::int64_t{4}, 0, std::int64_t{1} << 20);
  const double epsilon = params.take_in("epsilon", 1e-6, 0.0, 1e6);
  Scorer scorer;
  scorer.group = "mean";
  scorer.needs = needs({Feature::query_moments, Feature::keys, Feature::values});
  scorer.score = [=](const LayerFeatures& layer, const Ops&) {
    const MeanRotation rotation(layer, horizon);
    const int group = layer.shape.group();
    const std::int64_t first = std::min(sinks, layer.tokens);
    const auto d = static_cast<std::size_t>(layer.values.columns);
    Tensor scores(layer.keys.heads, 1, layer.tokens);
    for (std::int64_t h = 0; h < layer.query_mean.heads; ++h) {
      const std::int64_t g = h / group;
      std::vector<double> anchor(layer.query_mean.row(h, 0).begin(), layer.query_mean.row(h, 0).end());
      rotation.turn(anchor);
      std::vector<double> weights;
      for (std::int64_t j = first; j < layer.tokens; ++j) weights.push_back(cosine(anchor, layer.keys.row(g, j)));
      if (weights.empty()) continue;
      const double top = *std::max_element(weights.begin(), weights.end());
      std::vector<double> capacity(d * d);
      for (std::size_t c = 0; c < d; ++c) capacity[c * d + c] = 1;
      for (std::size_t i = 0; i < weights.size(); ++i) {
        weights[i] = std::exp(tau * (weights[i] - top));
        const auto value = layer.values.row(g, first + static_cast<std::int64_t>(i));
        for (std::size_t a = 0; a < d; ++a)
          for (std::size_t b = 0; b < d; ++b)
            capacity[a * d + b] +=
                (weights[i] + epsilon) * static_cast<double>(value[a]) * static_cast<double>(value[b]);
      }
      const auto inverse = Cholesky::of(std::move(capacity), d);  // I plus squares: positive definite
      for (std::size_t i = 0; i < weights.size(); ++i) {
        const auto value = layer.values.row(g, first + static_cast<std::int64_t>(i));
        const std::vector<double> v(value.begin(), value.end());
        const double gain = inverse ? weights[i] * inverse->inverse_form(v) : 0.0;
        scores.row(g, 0)[static_cast<std::size_t>(first) + i] += static_cast<float>(gain / group);
      }
    }
    for (std::int64_t g = 0; g < scores.heads(); ++g) std::fill_n(scores.row(g, 0).begin(), first, kForced);
    return scores;
  };
  return scorer;
}

}  // namespace depthkv
