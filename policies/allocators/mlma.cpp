// SPDX-License-Identifier: Apache-2.0
// DepthKV-MLMA: a block of middle layers stays whole, the others go by InfoNCE.
// Dehghanighobadi and Fischer 2026, arXiv:2604.24647; the paper prints no width of the block, so the default is ours.
#include "policies/allocators/depthkv.h"

namespace depthkv {

LayerAllocator make_mlma_layers(Params& params) { return depthkv_layers(params, {"mlma", "infonce", 4}); }

}  // namespace depthkv
