// SPDX-License-Identifier: Apache-2.0
// The two halves of Compactor (arXiv:2507.08143), which are scorers of their own, too.
#pragma once
#include "depthkv/policy.h"

namespace depthkv {

struct LeverageOptions {
  std::int64_t sketch = 48;  // dimensions of the random sketch, 0: none
  double jitter = 1e-2;
  std::uint64_t seed = 0;
};
LeverageOptions take_leverage(Params& params);
// Needs unrotated_keys.
Tensor leverage_scores(const LayerFeatures& layer, const LeverageOptions& options);

struct NoncausalOptions {
  std::int64_t chunk = 256;
  bool parity_bugs = false;  // padding of the last chunk as in kvpress
};
NoncausalOptions take_noncausal(Params& params);
// Needs queries, keys and values.
Tensor noncausal_scores(const LayerFeatures& layer, const NoncausalOptions& options, const Ops& ops);

}  // namespace depthkv
