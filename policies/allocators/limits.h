// SPDX-License-Identifier: Apache-2.0
// What every layer allocator has to respect.
#pragma once
#include <cstdint>
#include <vector>

#include "depthkv/policy.h"

namespace depthkv {

// Per layer: no less than the protected entries (one entry per
// head where the budget can't hold those), no more than there are.
struct LayerLimits {
  std::vector<std::int64_t> floors;
  std::vector<std::int64_t> caps;
};
LayerLimits layer_limits(const LayerInput& input, Budget budget);

// The budget in proportion to the layers' sizes.
std::vector<std::int64_t> split_evenly(const LayerInput& input, Budget budget);

}  // namespace depthkv
