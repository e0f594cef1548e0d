// SPDX-License-Identifier: Apache-2.0
// DepthKV-MGA: metric-guided allocation, by the InfoNCE after attention: lower means keep more.
// Dehghanighobadi and Fischer 2026, arXiv:2604.24647; the paper prints no width of the block, so the default is ours.
#include "policies/allocators/depthkv.h"

namespace depthkv {

LayerAllocator make_mga_layers(Params& params) { return depthkv_layers(params, {"mga", "infonce", 0}); }

}  // namespace depthkv
