// SPDX-License-Identifier: Apache-2.0
// Exact integer budgets.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "depthkv/shape.h"

namespace depthkv {

// How many entries each KV head of each layer keeps.
struct Allocation {
  std::vector<std::vector<std::int64_t>> kept;  // [layer][KV head]
  std::int64_t total() const;
};

// Shares `total` out in proportion to `weights` (finite, >= 0; all zero counts as equal), each within [floor, cap]:
// clamp(level * weight, floor, cap) with the level that makes the sum exact, then largest remainder, ties to the lower
// index. Limits that don't bind change nothing (docs/decisions/005).
// Throws Error when the sizes differ, a weight is negative or not finite, or floors or caps make the total impossible.
std::vector<std::int64_t> share_out(std::int64_t total, std::span<const double> weights,
                                    std::span<const std::int64_t> floors, std::span<const std::int64_t> caps);

}  // namespace depthkv
