// SPDX-License-Identifier: Apache-2.0
// One maker per allocator. Seen by registry.cpp only.
#pragma once
#include "depthkv/policy.h"

namespace depthkv {

LayerAllocator make_cake_layers(Params& params);
LayerAllocator make_d2o_layers(Params& params);
LayerAllocator make_depthkv_layers(Params& params);
LayerAllocator make_dynamickv_layers(Params& params);
LayerAllocator make_explicit_layers(Params& params);
LayerAllocator make_kvcompose_layers(Params& params);
LayerAllocator make_lava_layers(Params& params);
LayerAllocator make_optimised_layers(Params& params);
LayerAllocator make_oracle_layers(Params& params);
LayerAllocator make_pooled_layers(Params& params);
LayerAllocator make_pyramid_layers(Params& params);
LayerAllocator make_simlayer_layers(Params& params);
LayerAllocator make_squeeze_layers(Params& params);
LayerAllocator make_uniform_layers(Params& params);
LayerAllocator make_zigzag_layers(Params& params);

HeadAllocator make_adakv_heads(Params& params);
HeadAllocator make_duo_heads(Params& params);
HeadAllocator make_explicit_heads(Params& params);
HeadAllocator make_headkv_heads(Params& params);
HeadAllocator make_oracle_heads(Params& params);
HeadAllocator make_uniform_heads(Params& params);

}  // namespace depthkv
