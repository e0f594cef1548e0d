// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <span>
#include <vector>

#include "depthkv/model.h"

namespace depthkv {

using BranchLogits = std::vector<std::vector<std::vector<float>>>;  // [branch][step][token]

inline BranchLogits score_branches(Branches& branches, std::size_t count, std::span<const Token> tokens) {
  BranchLogits all(count);
  branches.score(tokens, 0, [&](std::size_t branch, std::int64_t, std::span<const float> logits) {
    all[branch].emplace_back(logits.begin(), logits.end());
  });
  return all;
}

}  // namespace depthkv
