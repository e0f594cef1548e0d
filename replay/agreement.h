// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <vector>

#include "depthkv/verify.h"

namespace depthkv {

// One entry per keep, and one over all of them where there are several.
std::vector<Agreement> measure_agreement(const ResultTable& results, const Verification& verification);

}  // namespace depthkv
