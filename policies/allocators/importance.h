// SPDX-License-Identifier: Apache-2.0
// From one number per layer to shares of a budget: the parts of depthkv.
#pragma once
#include <string>
#include <vector>

#include "policies/allocators/limits.h"

namespace depthkv {

// How numbers become weights.
struct ImportanceMap {
  double sign = 1;
  std::string normalise;  // over layers: zscore, minmax, rank, none
  std::string map;        // softmax, shift, inverse
  double temperature = 1;
};
// Positive unless a softmax underflows.
std::vector<double> weights_of(std::vector<double> importance, const ImportanceMap& how);

// Which layers of a centred block of `count` stay whole. Of a block that doesn't fit the widest that does: the others
// need their floors.
std::vector<bool> middle_block(std::int64_t count, const Limits& limits, Budget budget);

}  // namespace depthkv
