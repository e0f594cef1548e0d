// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "depthkv/policy.h"

namespace depthkv {

// What the paper's strategies set otherwise.
struct DepthkvDefaults {
  const char* name;
  const char* metric = nullptr;  // none: kl of an importance.json, else output_error
  std::int64_t protect_middle = 0;
};
// depthkv with other defaults; depthkv.cpp says what its parameters mean.
LayerAllocator depthkv_layers(Params& params, const DepthkvDefaults& defaults);

}  // namespace depthkv
