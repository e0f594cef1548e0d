// SPDX-License-Identifier: Apache-2.0
// When enough samples have been verified.
#pragma once
#include "depthkv/verify.h"

namespace depthkv {

// Fewer samples than this separate nothing: intervals of so few are too narrow.
inline constexpr std::size_t kFewestSamples = 5;

// Whether, at every keep, each of the `count` candidates with the smallest mean KL is told from each of the others: the
// paired 95 % interval of the difference over samples (bootstrap) excludes 0. Looking after every sample makes the
// chance of a false separation larger than 5 %: this says when to stop, not how sure to be.
bool is_separate(const Verification& verification, std::size_t count);

}  // namespace depthkv
