// SPDX-License-Identifier: Apache-2.0
// accumulate_losses: what rankings cost at every kept count at once. One KV head, any number of (query head, row)
// pairs, any number of rankings, all of the same n entries; curves[i] belongs to rankings[i].
//
// For each row with attention a over T keys, values v, ranking r
// of the first n: S_k = {r[0] .. r[k-1]} and all positions >= n;
//   mass[k] += a(S_k),   error[k] += |o_k - o|^2,   o_k = (sum over S_k of a v) / a(S_k), or 0 where a(S_k) <= kNoMass,
//   o = sum over all keys of a v,   energy += |o|^2,   rows += 1.
// mass is non-decreasing in k within rounding; at k = n a row adds exactly 1 and exactly 0. Rows of `attention` must
// sum to 1. The CPU works in float, masses in double, adds the losses of two rows at a time in float and these in
// double, from |s|^2 + 2 q s o + q^2 |o|^2 (cpu.cpp), which is within rounding of the squared norm of s + q o as long as
// |o| isn't far larger than that; the result doesn't depend on how rows are grouped into calls beyond rounding,
// and is the same bytes for the same call and for rankings taken one by one. CUDA works in float, too, keeps masses in
// double, and adds up rows in double in a fixed order: the same bits from run to run and however little memory there
// is.
#pragma once
#include <span>

#include "depthkv/curve.h"

namespace depthkv {

namespace reference {
void accumulate_losses(const LossInput& input, std::span<LossCurves> curves);
}
namespace cpu {
void accumulate_losses(const LossInput& input, std::span<LossCurves> curves);
}
namespace cuda {
void accumulate_losses(const LossInput& input, std::span<LossCurves> curves);
}

}  // namespace depthkv
