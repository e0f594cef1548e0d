// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "depthkv/error.h"
#include "kernels/quantise/quantise.h"

namespace depthkv {

double levels_of(QuantiseSpec spec) {
  if (spec.bits < 1 || spec.bits > 8) throw Error("quantise: " + std::to_string(spec.bits) + " bits, expected 1 to 8");
  if (spec.size < 1) throw Error("quantise: groups of " + std::to_string(spec.size) + ", expected at least 1");
  return static_cast<double>((1 << spec.bits) - 1);
}

namespace reference {
namespace {

void quantise_group(std::span<float* const> group, double levels) {
  double least = std::numeric_limits<double>::infinity();
  double most = -least;
  bool finite = true;
  for (const float* x : group) {
    least = std::min(least, static_cast<double>(*x));
    most = std::max(most, static_cast<double>(*x));
    finite = finite && std::isfinite(*x);
  }
  const double step = (most - least) / levels;
  for (float* x : group) {
    if (!finite) {
      *x = std::numeric_limits<float>::quiet_NaN();
    } else if (step > 0) {
      *x = static_cast<float>(least + std::nearbyint((static_cast<double>(*x) - least) / step) * step);
    }
  }
}

}  // namespace

Tensor quantise(const View& rows, QuantiseSpec spec) {
  const double levels = levels_of(spec);
  const bool tokens = spec.along == QuantiseSpec::Along::tokens;
  Tensor result(rows.heads, rows.rows, rows.columns);
  for (std::int64_t h = 0; h < rows.heads; ++h)
    for (std::int64_t r = 0; r < rows.rows; ++r) std::ranges::copy(rows.row(h, r), result.row(h, r).begin());
  for (std::int64_t h = 0; h < rows.heads; ++h) {
    for (std::int64_t line = 0; line < (tokens ? rows.columns : rows.rows); ++line) {
      const std::int64_t length = tokens ? rows.rows : rows.columns;
      for (std::int64_t first = 0; first < length; first += spec.size) {
        std::vector<float*> group;
        for (std::int64_t i = first; i < std::min(first + spec.size, length); ++i)
          group.push_back(&result.row(h, tokens ? i : line)[static_cast<std::size_t>(tokens ? line : i)]);
        quantise_group(group, levels);
      }
    }
  }
  return result;
}

}  // namespace reference
}  // namespace depthkv
