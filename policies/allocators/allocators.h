// SPDX-License-Identifier: Apache-2.0
// One maker per allocator. Seen by registry.cpp only.
#pragma once
#include "depthkv/policy.h"

namespace depthkv {

LayerAllocator make_depthkv_layers(Params& params);
LayerAllocator make_oracle_layers(Params& params);
LayerAllocator make_pyramid_layers(Params& params);
LayerAllocator make_uniform_layers(Params& params);

HeadAllocator make_adakv_heads(Params& params);
HeadAllocator make_uniform_heads(Params& params);

}  // namespace depthkv
