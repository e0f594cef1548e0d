// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "depthkv/policy.h"

namespace depthkv {

// What single evictions cost: per query head and position j < `tokens`, summed over rows i with attention A and output
// o_i = sum over all keys of A v:
//   alone: |o_i without j - o_i|^2 = (A / (1 - A))^2 |v_j - o_i|^2, renormalised; |o_i|^2 where j holds all of A
//   share: A^2 |v_j - o_i|^2, the same to first order
enum class Eviction { alone, share };
// rows [H, R, T], values [Hkv, T, d]; returns [H, 1, tokens].
Tensor eviction_errors(const View& rows, const View& values, std::int64_t tokens, Eviction kind);

}  // namespace depthkv
