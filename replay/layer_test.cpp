// SPDX-License-Identifier: Apache-2.0
#include "replay/layer_test.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "depthkv/error.h"
#include "depthkv/stats.h"
#include "replay/layer_drops.h"

namespace depthkv {
namespace {

constexpr int kPowerPermutations = 99;
constexpr int kPowerDraws = 100;
constexpr double kPower = 0.8;

void check(const LayerDrops& drops) {
  if (drops.empty() || drops[0].size() < 2)
    throw Error(fmt::format("layers are compared over at least one sample and two layers, not {} and {}", drops.size(),
                            drops.empty() ? 0 : drops[0].size()));
  for (const std::vector<double>& row : drops) {
    if (row.size() != drops[0].size())
      throw Error(fmt::format("samples have drops of {} and of {} layers", drops[0].size(), row.size()));
    if (std::any_of(row.begin(), row.end(), [](double x) { return !std::isfinite(x); }))
      throw Error("a layer's drop isn't a finite number");
  }
}

// Sum of squares around the mean.
double spread(std::span<const double> x) {
  const double middle = mean(x);
  double sum = 0;
  for (const double value : x) sum += (value - middle) * (value - middle);
  return sum;
}

double between_layers(const LayerDrops& drops) {
  const std::vector<double> means = mean_drops(drops);
  return spread(means) / static_cast<double>(means.size());
}

double p_value(const LayerDrops& drops, int permutations, std::uint64_t& state) {
  // Sums of permuted rows are the same numbers in another order: what differs by rounding alone counts as equal.
  const double observed = between_layers(drops) * (1 - 1e-12);
  LayerDrops permuted = drops;
  std::vector<std::size_t> order(drops[0].size());
  int exceeding = 0;
  for (int i = 0; i < permutations; ++i) {
    for (std::size_t s = 0; s < drops.size(); ++s) {
      std::iota(order.begin(), order.end(), std::size_t{0});
      shuffle(order, state);
      for (std::size_t l = 0; l < order.size(); ++l) permuted[s][l] = drops[s][order[l]];
    }
    exceeding += between_layers(permuted) >= observed ? 1 : 0;
  }
  return (1.0 + exceeding) / (1.0 + permutations);
}

double eta_squared(const LayerDrops& drops) {
  double within = 0;
  for (const std::vector<double>& row : drops) within += spread(row);
  return within > 0 ? static_cast<double>(drops.size()) * spread(mean_drops(drops)) / within : 0;
}

double kendall_w(const LayerDrops& drops) {
  LayerDrops ranks;
  for (const std::vector<double>& row : drops) ranks.push_back(mid_ranks(row));
  return eta_squared(ranks);  // W with its correction for ties
}

bool has_power(const LayerDrops& drops, std::size_t samples, double alpha, std::uint64_t& state) {
  int rejected = 0;
  for (int draw = 0; draw < kPowerDraws; ++draw) {
    LayerDrops drawn;
    while (drawn.size() < samples) {
      for (const std::size_t s : resample(drops.size(), state))
        if (drawn.size() < samples) drawn.push_back(drops[s]);
    }
    rejected += p_value(drawn, kPowerPermutations, state) <= alpha ? 1 : 0;
  }
  return rejected >= kPower * kPowerDraws;
}

}  // namespace

LayerTest test_equal_layers(const LayerDrops& drops, int permutations, std::uint64_t seed) {
  check(drops);
  LayerTest test;
  test.samples = drops.size();
  test.layers = drops[0].size();
  test.statistic = between_layers(drops);
  test.p = p_value(drops, permutations, seed);
  test.eta_squared = eta_squared(drops);
  test.kendall_w = kendall_w(drops);
  return test;
}

std::size_t samples_needed(const LayerDrops& drops, double alpha, std::size_t most, std::uint64_t seed) {
  check(drops);
  std::size_t enough = 1;
  while (enough < most && !has_power(drops, enough, alpha, seed)) enough = std::min(most, 2 * enough);
  if (enough == most && !has_power(drops, most, alpha, seed)) return 0;
  std::size_t few = enough / 2;  // too few, if not 0
  while (enough - few > 1) {
    const std::size_t middle = few + (enough - few) / 2;
    (has_power(drops, middle, alpha, seed) ? enough : few) = middle;
  }
  return enough;
}

std::vector<double> holm_adjusted(std::span<const double> p) {
  std::vector<std::size_t> order(p.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return p[a] < p[b]; });
  std::vector<double> adjusted(p.size());
  double least = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    least = std::max(least, std::min(1.0, p[order[i]] * static_cast<double>(p.size() - i)));
    adjusted[order[i]] = least;
  }
  return adjusted;
}

}  // namespace depthkv
