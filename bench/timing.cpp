// SPDX-License-Identifier: Apache-2.0
#include "bench/timing.h"

#include <algorithm>
#include <cmath>
#include <ctime>

namespace depthkv {
namespace {

// How often a piece runs in a turn.
int repeats_of(const std::function<void()>& work, double least) {
  work();
  for (int repeats = 1;; repeats *= 2) {
    const double start = cpu_seconds();
    for (int i = 0; i < repeats; ++i) work();
    const double seconds = cpu_seconds() - start;
    if (seconds >= least) return std::max(1, static_cast<int>(std::ceil(repeats * least / seconds)));
  }
}

}  // namespace

double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// How many of n values lie below the median is binomial (n, 1/2): the interval from the k-th smallest to the k-th
// largest misses it with probability 2 P(X < k).
MedianInterval interval_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  std::size_t cut = 0;
  double term = std::pow(0.5, static_cast<double>(n));
  for (double outside = term; 2 * outside <= 0.05 && 2 * (cut + 1) < n; outside += term) {
    ++cut;
    term *= static_cast<double>(n - cut + 1) / static_cast<double>(cut);
  }
  if (cut > 0) --cut;  // `cut` values lie outside on each side
  const double middle = n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
  return {values[cut], middle, values[n - 1 - cut]};
}

std::vector<std::vector<double>> time_in_turn(const std::vector<std::function<void()>>& works, Rounds rounds) {
  std::vector<int> repeats;
  for (const auto& work : works) repeats.push_back(repeats_of(work, rounds.least));
  std::vector<std::vector<double>> times;
  double spent = 0;
  for (int round = 0; round <= rounds.most; ++round) {
    if (round > rounds.fewest && spent > rounds.budget) break;
    std::vector<double> line;
    for (std::size_t w = 0; w < works.size(); ++w) {
      const double start = cpu_seconds();
      for (int i = 0; i < repeats[w]; ++i) works[w]();
      const double seconds = cpu_seconds() - start;
      spent += seconds;
      line.push_back(seconds / repeats[w]);
    }
    if (round > 0) times.push_back(std::move(line));
  }
  return times;
}

}  // namespace depthkv
