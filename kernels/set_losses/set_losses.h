// SPDX-License-Identifier: Apache-2.0
// set_losses: what keeping one set of entries costs; accumulate_losses for a single kept set that need not be the start
// of a ranking. One KV head, any number of (query head, row) pairs.
//
// For each row with attention a over T keys and values v; S = `kept` (distinct positions below `tokens`) and all
// positions >= tokens: mass += a(S), error += |o' - o|^2 with o' = (sum over S of a v) / a(S), or 0 where
// a(S) <= kNoMass, energy += |o|^2, rows += 1. A set of all positions adds exactly 1 and exactly 0.
#pragma once
#include "depthkv/curve.h"

namespace depthkv {

namespace reference {
SetLosses set_losses(const SetInput& input);
}
namespace cpu {
SetLosses set_losses(const SetInput& input);
}
namespace cuda {
SetLosses set_losses(const SetInput& input);
}

}  // namespace depthkv
