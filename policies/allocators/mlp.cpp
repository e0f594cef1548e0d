// SPDX-License-Identifier: Apache-2.0
// DepthKV-MLP: a block of middle layers stays whole, the others share what remains alike.
// Dehghanighobadi and Fischer 2026, arXiv:2604.24647; the paper prints no width of the block, so the default is ours.
#include "policies/allocators/depthkv.h"

namespace depthkv {

LayerAllocator make_mlp_layers(Params& params) { return depthkv_layers(params, {"mlp", "none", 4}); }

}  // namespace depthkv
