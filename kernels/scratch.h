// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <vector>

#include "depthkv/tensor.h"

namespace depthkv::cpu {

// Floats that are yet to be written, from a cache line on.
using Scratch = std::vector<float, TensorAllocator<float>>;

// The same for a few.
template <std::size_t kCount>
struct alignas(64) Lines : std::array<float, kCount> {};

}  // namespace depthkv::cpu
