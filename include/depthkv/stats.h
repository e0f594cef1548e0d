// SPDX-License-Identifier: Apache-2.0
// The statistics that reports need. All deterministic: seeds are arguments.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace depthkv {

// Seed of every draw that reports make: the same numbers from the same results.
inline constexpr std::uint64_t kReportSeed = 1;

double mean(std::span<const double> x);  // NaN when empty

// Rank of each value, ties sharing the middle of theirs; from 1.
std::vector<double> mid_ranks(std::span<const double> x);

// Kendall's tau-b (ties corrected) and Spearman's rho (mid-ranks).
// NaN when either side is constant or has fewer than 2 values.
double kendall_tau_b(std::span<const double> x, std::span<const double> y);
double spearman_rho(std::span<const double> x, std::span<const double> y);

struct Interval {
  double low = 0;
  double high = 0;
};

// The middle 95 % of bootstrap draws. NaN when there are none that are finite.
Interval percentile_interval(std::vector<double> draws);

// Percentile bootstrap of the mean over samples, 95 %; `x` may be differences, which makes it paired. NaN when empty.
Interval bootstrap_mean(std::span<const double> x, std::uint64_t seed, int resamples = 2000);

// Uniform in [0, count), count >= 1. Advances `state`.
std::size_t draw_below(std::size_t count, std::uint64_t& state);

// Indices drawn with replacement from [0, count): one bootstrap resample. Advances `state`.
std::vector<std::size_t> resample(std::size_t count, std::uint64_t& state);

// All orders are as likely (Fisher, Yates). Advances `state`.
void shuffle(std::span<std::size_t> x, std::uint64_t& state);

// The linearly interpolated q-quantile, 0 <= q <= 1, of the finite values in x. NaN when there are none.
double quantile(std::vector<double> x, double q);

}  // namespace depthkv
