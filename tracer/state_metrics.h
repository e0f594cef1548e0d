// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "depthkv/trace.h"

namespace depthkv {

// What is kept of the hidden states of one stage of one layer, [rows, width].
struct StateSummary {
  std::vector<float> mean;                             // [width]
  std::vector<float> unit_mean;                        // [width], of the unit rows
  std::array<float, kHiddenScalars.size()> scalars{};  // by HiddenScalar
};

// Gives the rows [first, first + out.size() / width).
using ReadStates = std::function<void(std::int64_t first, std::span<float> out)>;

// Two passes over the rows, a block of them in memory at a time; with `scalars`, min(rows, width)^2 doubles, too.
// Angles with a zero vector don't count; without any angle, curvature is 0, so it is below 3 rows and curvature_code
// below 2. Without a unit row that isn't zero (below 2 rows, or all the same), entropy and rank are 0.
StateSummary summarise_states(const ReadStates& read, std::int64_t rows, std::int64_t width, bool scalars);

}  // namespace depthkv
