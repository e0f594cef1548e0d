// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <vector>

#include "depthkv/tasks.h"
#include "depthkv/verify.h"

namespace depthkv {

// For every metric that was measured, rank_by first: over all tasks at each keep, and over all keeps where there are
// several; then each task over all keeps, where there are several.
std::vector<Agreement> measure_agreement(const ResultTable& results, const Verification& verification);

}  // namespace depthkv
