// SPDX-License-Identifier: Apache-2.0
#include "depthkv/stats.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

namespace depthkv {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

// SplitMix64 (Steele, Lea, Flood 2014).
std::uint64_t next_random(std::uint64_t& state) {
  std::uint64_t x = state += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

double pearson(std::span<const double> x, std::span<const double> y) {
  const double mean_x = mean(x);
  const double mean_y = mean(y);
  double xy = 0;
  double xx = 0;
  double yy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    xy += (x[i] - mean_x) * (y[i] - mean_y);
    xx += (x[i] - mean_x) * (x[i] - mean_x);
    yy += (y[i] - mean_y) * (y[i] - mean_y);
  }
  return xx > 0 && yy > 0 ? xy / std::sqrt(xx * yy) : kNone;
}

// All but finite numbers.
void erase_others(std::vector<double>& x) {
  std::erase_if(x, [](double value) { return !std::isfinite(value); });
}

// Of finite numbers, whose order it changes.
double quantile_of(std::vector<double>& x, double q) {
  if (x.empty()) return kNone;
  const double at = q * static_cast<double>(x.size() - 1);
  const auto floor = x.begin() + static_cast<std::ptrdiff_t>(at);
  std::nth_element(x.begin(), floor, x.end());
  const double next = floor + 1 == x.end() ? *floor : *std::min_element(floor + 1, x.end());
  return *floor + (at - std::floor(at)) * (next - *floor);
}

}  // namespace

// The high half of a product with the range (Lemire 2019): unbiased to 2^-32 for any realistic count.
std::size_t draw_below(std::size_t count, std::uint64_t& state) {
  return static_cast<std::size_t>(((next_random(state) >> 32) * count) >> 32);
}

double mean(std::span<const double> x) {
  return x.empty() ? kNone : std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size());
}

std::vector<double> mid_ranks(std::span<const double> x) {
  std::vector<std::size_t> order(x.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return x[a] < x[b]; });
  std::vector<double> ranks(x.size());
  for (std::size_t begin = 0; begin < order.size();) {
    std::size_t end = begin + 1;
    while (end < order.size() && x[order[end]] == x[order[begin]]) ++end;
    for (std::size_t i = begin; i < end; ++i) ranks[order[i]] = static_cast<double>(begin + end + 1) / 2;
    begin = end;
  }
  return ranks;
}

double kendall_tau_b(std::span<const double> x, std::span<const double> y) {
  std::int64_t balance = 0;  // concordant pairs less discordant ones
  std::int64_t untied_x = 0;
  std::int64_t untied_y = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    for (std::size_t j = i + 1; j < x.size(); ++j) {
      const int dx = (x[i] > x[j]) - (x[i] < x[j]);
      const int dy = (y[i] > y[j]) - (y[i] < y[j]);
      balance += dx * dy;
      untied_x += dx != 0;
      untied_y += dy != 0;
    }
  }
  if (untied_x == 0 || untied_y == 0) return kNone;
  return static_cast<double>(balance) / std::sqrt(static_cast<double>(untied_x) * static_cast<double>(untied_y));
}

double spearman_rho(std::span<const double> x, std::span<const double> y) {
  if (x.size() < 2) return kNone;
  return pearson(mid_ranks(x), mid_ranks(y));
}

std::vector<std::size_t> resample(std::size_t count, std::uint64_t& state) {
  std::vector<std::size_t> drawn(count);
  for (std::size_t& index : drawn) index = draw_below(count, state);
  return drawn;
}

void shuffle(std::span<std::size_t> x, std::uint64_t& state) {
  for (std::size_t i = x.size(); i > 1; --i) std::swap(x[i - 1], x[draw_below(i, state)]);
}

double quantile(std::vector<double> x, double q) {
  erase_others(x);
  return quantile_of(x, q);
}

Interval percentile_interval(std::vector<double> draws) {
  erase_others(draws);
  const double low = quantile_of(draws, 0.025);
  return {low, quantile_of(draws, 0.975)};
}

Interval bootstrap_mean(std::span<const double> x, std::uint64_t seed, int resamples) {
  if (x.empty()) return {kNone, kNone};
  std::vector<double> means;
  means.reserve(static_cast<std::size_t>(resamples));
  std::uint64_t state = seed;
  for (int i = 0; i < resamples; ++i) {
    double sum = 0;
    for (std::size_t n = 0; n < x.size(); ++n) sum += x[draw_below(x.size(), state)];
    means.push_back(sum / static_cast<double>(x.size()));
  }
  return percentile_interval(std::move(means));
}

}  // namespace depthkv
