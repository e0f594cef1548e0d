// SPDX-License-Identifier: Apache-2.0
// The rotary position embedding (Su et al. 2021, arXiv:2104.09864), for what isn't worth a kernel.
#pragma once
#include <span>
#include <vector>

#include "depthkv/policy.h"
#include "depthkv/trace.h"

namespace depthkv {

// How a layer rotates: as recorded, or by the base alone where the trace says no more.
Rotary rotary_of(const ModelCard& model, int layer);
// Radians per position of the pairs of n rotated dimensions: base^(-2 c / n) (the paper's section 3.2.2).
std::vector<double> plain_frequencies(double base, std::size_t n);

// The two dimensions that turn together as pair c, c < frequencies.size().
std::pair<std::size_t, std::size_t> rotary_pair(const Rotary& rotary, std::size_t c);

// x at position 0 to what the model has at `position`, and back. Pairs::none: nothing. x has at least 2 *
// frequencies.size() dimensions.
void rotate(std::span<float> x, double position, const Rotary& rotary);
void unrotate(std::span<float> x, double position, const Rotary& rotary);

// Rows [H, n, d] at positions 0 .. n - 1, turned back to position 0.
Tensor unrotated(const View& rows, const Rotary& rotary);

}  // namespace depthkv
