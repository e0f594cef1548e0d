// SPDX-License-Identifier: Apache-2.0
#include "policies/allocators/importance.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "depthkv/stats.h"

namespace depthkv {
namespace {

// Keeps squares and products with sizes finite.
constexpr double kHuge = 1e100;

// Over layers: mean 0 and deviation 1, range [0, 1], mid-free rank / (L - 1), or as it is. Constant input gives all 0.
std::vector<double> normalised(std::vector<double> x, const std::string& how) {
  const auto count = static_cast<double>(x.size());
  const auto [low, high] = std::minmax_element(x.begin(), x.end());
  if (how == "none") return x;
  if (*low == *high) return std::vector<double>(x.size(), 0.0);
  double shift = *low;
  double scale = *high - *low;
  if (how == "rank") {
    const std::vector<double> raw = x;
    for (double& value : x) {
      const double own = value;
      value = static_cast<double>(std::count_if(raw.begin(), raw.end(), [&](double other) { return other < own; })) /
              (count - 1);
    }
    return x;
  }
  if (how == "zscore") {
    shift = mean(x);
    scale = std::sqrt(std::accumulate(x.begin(), x.end(), 0.0,
                                      [&](double sum, double v) { return sum + (v - shift) * (v - shift); }) /
                      count);
  }
  for (double& value : x) value = scale > 0 ? (value - shift) / scale : 0;
  return x;
}

}  // namespace

std::vector<double> weights_of(std::vector<double> importance, const ImportanceMap& how) {
  if (importance.empty()) return {};
  for (double& value : importance) value = std::clamp(how.sign * value, -kHuge, kHuge);
  std::vector<double> weights = normalised(importance, how.normalise);
  const auto [low, high] = std::minmax_element(weights.begin(), weights.end());
  const double lowest = *low;
  const double highest = *high;
  for (double& weight : weights) {
    if (how.map == "softmax") {
      weight = std::exp((weight - highest) / how.temperature);
    } else if (how.map == "shift") {
      weight = 1 + weight - lowest;
    } else {
      weight = 1 / std::max(1 / kHuge, highest < 0 ? -weight : 1 + highest - weight);
    }
  }
  return weights;
}

std::vector<bool> middle_block(std::int64_t count, std::size_t layers) {
  std::vector<bool> inside(layers, false);
  std::fill_n(inside.begin() + (static_cast<std::int64_t>(layers) - count) / 2, count, true);
  return inside;
}

std::int64_t widest_middle(const Limits& limits, Budget budget) {
  const std::size_t layers = limits.caps.size();
  auto widest = static_cast<std::int64_t>(layers);
  for (; widest > 0; --widest) {
    const std::vector<bool> whole = middle_block(widest, layers);
    std::int64_t least = 0;
    for (std::size_t l = 0; l < layers; ++l) least += whole[l] ? limits.caps[l] : limits.floors[l];
    if (least <= budget.entries) break;
  }
  return widest;
}

}  // namespace depthkv
