// SPDX-License-Identifier: Apache-2.0
// How the query heads of a group are reduced to their KV head.
#pragma once
#include <string>

#include "depthkv/policy.h"

namespace depthkv {

enum class Reduction { mean, max, sum };

// The parameter `key`: mean, max or sum.
Reduction take_reduction(Params& params, const std::string& key, const std::string& fallback, std::string& name);
// The parameter `group`, with its name for Scorer::group.
Reduction take_group(Params& params, const std::string& fallback, std::string& name);

// [H, 1, n] to [Hkv, 1, n]; sums in double.
Tensor reduce_group(const View& per_query_head, int group, Reduction reduction);

}  // namespace depthkv
