// SPDX-License-Identifier: Apache-2.0
// Groups of tokens side by side, channel by channel, so that both kinds read neighbouring numbers.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/quantise/quantise.h"

namespace depthkv::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Of one group, or of one lane of it.
struct Range {
  float least = kInfinity;
  float most = -kInfinity;
  float none = 0;  // NaN once a number wasn't finite

  void add(float x) {
    least = x < least ? x : least;
    most = x > most ? x : most;
    none += x * 0.0F;
  }
};

inline float came_back(float x, double least, double step, float none) {
  const double level = std::rint((static_cast<double>(x) - least) / step);
  const float y = step > 0 ? static_cast<float>(least + level * step) : x;
  return none == 0 ? y : none;
}

// Of every channel of a block of tokens.
struct Ranges {
  explicit Ranges(std::size_t channels)
      : least(channels), most(channels), none(channels), low(channels), step(channels) {}

  void reset() {
    std::ranges::fill(least, kInfinity);
    std::ranges::fill(most, -kInfinity);
    std::ranges::fill(none, 0.0F);
  }
  void add(const float* row) {
    for (std::size_t c = 0; c < least.size(); ++c) {
      least[c] = row[c] < least[c] ? row[c] : least[c];
      most[c] = row[c] > most[c] ? row[c] : most[c];
      none[c] += row[c] * 0.0F;
    }
  }
  void finish(double levels) {
    for (std::size_t c = 0; c < least.size(); ++c) {
      low[c] = static_cast<double>(least[c]);
      step[c] = (static_cast<double>(most[c]) - low[c]) / levels;
    }
  }
  void apply(const float* row, float* to) const {
    for (std::size_t c = 0; c < least.size(); ++c) to[c] = came_back(row[c], low[c], step[c], none[c]);
  }

  std::vector<float> least;
  std::vector<float> most;
  std::vector<float> none;
  std::vector<double> low;
  std::vector<double> step;
};

void along_tokens(const View& rows, std::int64_t size, double levels, Tensor& result) {
  Ranges ranges(static_cast<std::size_t>(rows.columns));
  for (std::int64_t h = 0; h < rows.heads; ++h) {
    for (std::int64_t first = 0; first < rows.rows; first += size) {
      const std::int64_t end = std::min(first + size, rows.rows);
      ranges.reset();
      for (std::int64_t r = first; r < end; ++r) ranges.add(rows.row(h, r).data());
      ranges.finish(levels);
      for (std::int64_t r = first; r < end; ++r) ranges.apply(rows.row(h, r).data(), result.row(h, r).data());
    }
  }
}

// In eight lanes, then of these.
Range range_of(std::span<const float> group) {
  constexpr std::size_t kLanes = 8;
  std::array<Range, kLanes> lanes;
  std::size_t i = 0;
  for (; i + kLanes <= group.size(); i += kLanes)
    for (std::size_t lane = 0; lane < kLanes; ++lane) lanes[lane].add(group[i + lane]);
  Range all;
  for (; i < group.size(); ++i) all.add(group[i]);
  for (const Range& lane : lanes) {
    all.least = std::min(all.least, lane.least);
    all.most = std::max(all.most, lane.most);
    all.none += lane.none;
  }
  return all;
}

void along_channels(const View& rows, std::size_t size, double levels, Tensor& result) {
  for (std::int64_t h = 0; h < rows.heads; ++h) {
    for (std::int64_t r = 0; r < rows.rows; ++r) {
      auto row = rows.row(h, r);
      float* to = result.row(h, r).data();
      while (!row.empty()) {
        const auto group = row.first(std::min(size, row.size()));
        const Range range = range_of(group);
        const double least = static_cast<double>(range.least);
        const double step = (static_cast<double>(range.most) - least) / levels;
        for (std::size_t i = 0; i < group.size(); ++i) to[i] = came_back(group[i], least, step, range.none);
        to += group.size();
        row = row.subspan(group.size());
      }
    }
  }
}

}  // namespace

Tensor quantise(const View& rows, QuantiseSpec spec) {
  const double levels = levels_of(spec);
  Tensor result = Tensor::unwritten(rows.heads, rows.rows, rows.columns);
  if (spec.along == QuantiseSpec::Along::tokens) {
    along_tokens(rows, spec.size, levels, result);
  } else {
    along_channels(rows, static_cast<std::size_t>(spec.size), levels, result);
  }
  return result;
}

}  // namespace depthkv::cpu
