// SPDX-License-Identifier: Apache-2.0
// attention_rows: causal softmax rows from queries and keys.
//
// queries [H, R, d], keys [Hkv, T, d] with H a multiple of Hkv (query head h reads KV head h / (H / Hkv)), positions
// [R] in [0, T). logit = scale * q . k, then softcap * tanh(logit / softcap) if softcap > 0; softmax over keys 0 ..
// position, of them the last `window` if it is > 0. Returns [H, R, T]; entries not seen are exactly 0; each row sums to
// 1 within rounding. NaN in gives NaN out in the rows it touches. The result of a row doesn't depend on the other rows.
#pragma once
#include <span>

#include "depthkv/ops.h"

namespace depthkv {

// The first of `seen` keys that the window leaves visible.
inline std::size_t first_seen(std::size_t seen, SoftmaxSpec spec) {
  const auto window = static_cast<std::size_t>(spec.window);
  return spec.window > 0 && seen > window ? seen - window : 0;
}

namespace reference {
Tensor attention_rows(const View& queries, const View& keys, std::span<const std::int32_t> positions, SoftmaxSpec spec);
// Cached keys [T, Hkv, d], rows at positions first, first + 1, ...: what attention_sums and attention_maxima reduce.
Tensor attention_rows(const View& queries, const HalfRows& keys, std::int64_t first, SoftmaxSpec spec);
}  // namespace reference
namespace cpu {
Tensor attention_rows(const View& queries, const View& keys, std::span<const std::int32_t> positions, SoftmaxSpec spec);
}
namespace cuda {
// The CPU's bits: scores made of rows rank entries the same way.
Tensor attention_rows(const View& queries, const View& keys, std::span<const std::int32_t> positions, SoftmaxSpec spec);
}  // namespace cuda

}  // namespace depthkv
