// SPDX-License-Identifier: Apache-2.0
// lagkv: tokens that stand out from the partition after theirs.   Liang et al. 2025, arXiv:2504.04704
// Beyond the sinks positions are cut into partitions of `lag`. With the next partition as reference, every channel is
// scaled to its range there, z = (x - min) / (max - min); a token's value is the softmax over its partition of the
// unbiased deviation of z over channels, averaged over keys and values. cross = false replaces it by the rank within
// the partition over lag, so that every partition keeps the same share. Sinks, the last full partition and what follows
// get
// 1. Below sinks + 2 lag positions nothing can be compared: sinks, then the most recent, as in kvpress. A channel
// without range counts as 0, where the official code divides by zero.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "depthkv/policy.h"

namespace depthkv {
namespace {

// Rows [begin, begin + lag) of one head against the range of the lag rows after them: the softmax of their deviations.
std::vector<double> stand_out(const View& rows, std::int64_t head, std::int64_t begin, std::int64_t lag) {
  const auto channels = static_cast<std::size_t>(rows.columns);
  std::vector<double> low(channels, HUGE_VAL);
  std::vector<double> high(channels, -HUGE_VAL);
  for (std::int64_t j = begin + lag; j < begin + 2 * lag; ++j) {
    for (std::size_t c = 0; c < channels; ++c) {
      low[c] = std::min(low[c], static_cast<double>(rows.row(head, j)[c]));
      high[c] = std::max(high[c], static_cast<double>(rows.row(head, j)[c]));
    }
  }
  std::vector<double> weights;
  for (std::int64_t j = begin; j < begin + lag; ++j) {
    std::vector<double> z;
    for (std::size_t c = 0; c < channels; ++c)
      z.push_back(high[c] > low[c] ? (static_cast<double>(rows.row(head, j)[c]) - low[c]) / (high[c] - low[c]) : 0.0);
    const double mean = std::accumulate(z.begin(), z.end(), 0.0) / static_cast<double>(channels);
    double squares = 0;
    for (const double x : z) squares += (x - mean) * (x - mean);
    weights.push_back(channels > 1 ? std::sqrt(squares / static_cast<double>(channels - 1)) : 0.0);
  }
  const double top = *std::max_element(weights.begin(), weights.end());
  for (double& w : weights) w = std::exp(w - top);
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (double& w : weights) w /= sum;
  return weights;
}

// How many are smaller, or equal and before: 0 to count - 1.
std::vector<double> ranks(const std::vector<double>& values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return values[a] < values[b]; });
  std::vector<double> rank(values.size());
  for (std::size_t r = 0; r < order.size(); ++r) rank[order[r]] = static_cast<double>(r);
  return rank;
}

}  // namespace

Scorer make_lagkv(Params& params) {
  const auto sinks = params.take_in("sinks", std::int64_t{4}, 0, std::int64_t{1} << 20);
  const auto lag = params.take_in("lag", std::int64_t{128}, 1, std::int64_t{1} << 20);
  const bool cross = params.take("cross", false);
  Scorer scorer;
  scorer.group = "none";
  scorer.needs = needs({Feature::keys, Feature::values});
  scorer.score = [=](const LayerFeatures& layer, const Ops&) {
    const std::int64_t n = layer.tokens;
    Tensor scores(layer.keys.heads, 1, n, 1.0F);
    for (std::int64_t g = 0; g < scores.heads(); ++g) {
      const auto row = scores.row(g, 0);
      if (n < sinks + 2 * lag) {
        for (std::int64_t j = sinks; j < n; ++j)
          row[static_cast<std::size_t>(j)] = static_cast<float>(static_cast<double>(j) / static_cast<double>(n));
        continue;
      }
      for (std::int64_t begin = sinks; begin + 2 * lag <= n; begin += lag) {
        std::vector<double> value = stand_out(layer.keys, g, begin, lag);
        const std::vector<double> of_values = stand_out(layer.values, g, begin, lag);
        for (std::size_t i = 0; i < value.size(); ++i) value[i] = (value[i] + of_values[i]) / 2;
        if (!cross) {
          value = ranks(value);
          for (double& v : value) v /= static_cast<double>(lag);
        }
        for (std::size_t i = 0; i < value.size(); ++i)
          row[static_cast<std::size_t>(begin) + i] = static_cast<float>(value[i]);
      }
    }
    return scores;
  };
  return scorer;
}

}  // namespace depthkv
