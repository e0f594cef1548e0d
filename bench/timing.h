// SPDX-License-Identifier: Apache-2.0
// Times of several pieces of work on a machine that others use, too: taken in turn, so that each round meets the same
// machine.
#pragma once
#include <functional>
#include <vector>

namespace depthkv {

// A median and the order statistics that hold it with at least 95 % confidence; with fewer than six values their range.
struct MedianInterval {
  double low = 0;
  double middle = 0;
  double high = 0;
};
MedianInterval interval_of(std::vector<double> values);

// Processor time of the whole process, in seconds: what others run in between doesn't count.
double cpu_seconds();

// [round][work]: processor seconds of one run of each piece. A piece that takes less than `least` seconds is repeated
// within its turn. As many rounds as fit into `budget` seconds, from `fewest` to `most`; one round before them doesn't
// count.
struct Rounds {
  double least = 0.004;
  double budget = 1.5;
  int fewest = 7;
  int most = 25;
};
std::vector<std::vector<double>> time_in_turn(const std::vector<std::function<void()>>& works, Rounds rounds);

}  // namespace depthkv
