// SPDX-License-Identifier: Apache-2.0
// The rotary position embedding (Su et al. 2021, arXiv:2104.09864), for what isn't worth a kernel.
#pragma once
#include <span>
#include <vector>

#include "depthkv/policy.h"

namespace depthkv {

// The two dimensions of d that turn together as pair c, c < d / 2.
std::pair<std::size_t, std::size_t> rotary_pair(const Rotary& rotary, std::size_t c, std::size_t d);
// Radians per position of every pair.
std::vector<double> rotary_frequencies(const Rotary& rotary, std::size_t d);

// Turns x by `by` positions, which may be negative. Pairs::none: nothing.
void rotate(std::span<float> x, double by, const Rotary& rotary);

// Rows [H, n, d] at positions 0 .. n - 1, turned back to position 0.
Tensor unrotated(const View& rows, const Rotary& rotary);

}  // namespace depthkv
