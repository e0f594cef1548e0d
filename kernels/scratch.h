// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <vector>

#include "depthkv/tensor.h"

namespace depthkv::cpu {

// Floats that are yet to be written.
using Scratch = std::vector<float, TensorAllocator<float>>;

}  // namespace depthkv::cpu
