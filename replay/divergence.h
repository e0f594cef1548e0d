// SPDX-License-Identifier: Apache-2.0
// How far branches of a model stray from its first branch.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "depthkv/model.h"

namespace depthkv {

double log_sum_exp(std::span<const float> logits);

// Means over the answer's tokens; NaN where none is predicted by a row that pruning can change.
struct Divergence {
  std::int64_t tokens = 0;
  double kl = 0;    // KL(first branch || this one) of the next-token distribution, nats
  double top1 = 0;  // share of tokens where the most likely token is the first branch's
};

// Of branches 1 .. count - 1, which continue the sample's first `cut` tokens with the recorded rest. The row at cut + s
// predicts token cut + s + 1; rows before the cut saw the full cache, so under the prompt cut the answer's first token
// is not counted.
std::vector<Divergence> measure_divergence(Branches& branches, std::size_t count, const Sample& sample,
                                           std::int64_t cut);

}  // namespace depthkv
