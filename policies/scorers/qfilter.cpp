// SPDX-License-Identifier: Apache-2.0
// qfilter: keys along the direction that the head's queries share.   Godey et al. 2025, arXiv:2503.02812
// u_h: first right singular vector of the query head's queries after rotation, turned so that their mean has a positive
// product with it; f: mean of u_h over the group; S[j] = f . k[j] (the published filters point the other way and are
// subtracted). Filters are meant to be calibrated: calibration names a folder of traces of the same model, of which
// every sample but the one that is scored counts. Without it the last observed rows' own queries stand in.
#include <algorithm>
#include <cmath>
#include <memory>

#include "policies/scorers/calibration.h"

namespace depthkv {
namespace {

// The eigenvector of the largest eigenvalue, by power iteration from the mean. Deterministic; slow where the largest
// two are close, when either will do.
std::vector<double> principal(const QuerySums& sums) {
  constexpr int kSteps = 200;
  const std::size_t d = sums.sum.size();
  const auto scaled = [](std::vector<double> x) {
    double length = 0;
    for (const double v : x) length += v * v;
    length = std::sqrt(length);
    for (double& v : x) v = length > 0 ? v / length : 0;
    return x;
  };
  std::vector<double> u = sums.sum;
  for (std::size_t c = 0; c < d; ++c) u[c] += 1e-6 * std::sqrt(std::max(0.0, sums.squares[c * d + c]));
  u = scaled(u);
  for (int step = 0; step < kSteps; ++step) {
    std::vector<double> next(d);
    for (std::size_t a = 0; a < d; ++a)
      for (std::size_t b = 0; b < d; ++b) next[a] += sums.squares[a * d + b] * u[b];
    u = scaled(std::move(next));
  }
  double along = 0;
  for (std::size_t c = 0; c < d; ++c) along += u[c] * sums.sum[c];
  if (along < 0)
    for (double& v : u) v = -v;
  return u;
}

std::vector<QuerySums> own_queries(const LayerFeatures& layer, std::int64_t window) {
  const View& queries = layer.window_queries;
  std::vector<QuerySums> sums(static_cast<std::size_t>(queries.heads),
                              QuerySums(static_cast<std::size_t>(queries.columns)));
  for (std::int64_t h = 0; h < queries.heads; ++h)
    for (std::int64_t r = std::max<std::int64_t>(0, queries.rows - window); r < queries.rows; ++r)
      sums[static_cast<std::size_t>(h)].add(queries.row(h, r));
  return sums;
}

}  // namespace

Scorer make_qfilter(Params& params) {
  const auto folder = params.take<std::string>("calibration", "");
  const auto window = params.take_in("window", std::int64_t{128}, 1, 128);
  const auto calibration = folder.empty() ? nullptr : std::make_shared<const Calibration>(folder);
  Scorer scorer;
  scorer.group = "mean";
  scorer.whole_cache = true;  // its queries are the end's
  scorer.needs = calibration ? needs({Feature::keys}) : needs({Feature::keys, Feature::window_queries}, window);
  if (calibration) scorer.source = calibration->source();
  scorer.score = [=](const LayerFeatures& layer, const Ops&) {
    const std::vector<QuerySums> sums =
        calibration ? calibration->without(layer.sample, layer) : own_queries(layer, window);
    const int group = layer.shape.group();
    Tensor scores(layer.keys.heads, 1, layer.tokens);
    for (std::int64_t g = 0; g < scores.heads(); ++g) {
      std::vector<double> filter(static_cast<std::size_t>(layer.keys.columns));
      for (std::int64_t h = g * group; h < (g + 1) * group; ++h) {
        const std::vector<double> u = principal(sums[static_cast<std::size_t>(h)]);
        for (std::size_t c = 0; c < filter.size(); ++c) filter[c] += u[c] / group;
      }
      for (std::int64_t j = 0; j < layer.tokens; ++j) {
        double dot = 0;
        const auto key = layer.keys.row(g, j);
        for (std::size_t c = 0; c < filter.size(); ++c) dot += filter[c] * static_cast<double>(key[c]);
        scores.row(g, 0)[static_cast<std::size_t>(j)] = static_cast<float>(dot);
      }
    }
    return scores;
  };
  return scorer;
}

}  // namespace depthkv
