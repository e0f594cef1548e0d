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

// A centred block of `count` of the layers.
std::vector<bool> middle_block(std::int64_t count, std::size_t layers);
// The widest that a budget can hold whole, the others at their floors.
std::int64_t widest_middle(const Limits& limits, Budget budget);

}  // namespace depthkv
