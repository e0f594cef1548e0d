// SPDX-License-Identifier: Apache-2.0
// attention_maxima: the most that every key receives from one row of a block of causal rows, without keeping them.
//
// queries, keys and first as in attention_sums; weights [W][R], W >= 1, each finite and at least 0. maxima [W][H][T]
// becomes the larger of itself and weights[w][r] * A[h, r, j] over all rows r, with A the rows of attention_rows; where
// no row sees a key it stays. R = 0 changes nothing. A row with NaN makes NaN of every key that it sees, and NaN stays.
// The result depends on neither the order nor the grouping of rows. The CPU computes A as attention_rows does; CUDA as
// attention_sums does, and reads queries and keys where they are if both are on this thread's device.
#pragma once
#include <span>

#include "depthkv/ops.h"

namespace depthkv {

namespace reference {
void attention_maxima(const View& queries, const HalfRows& keys, std::int64_t first, SoftmaxSpec spec,
                      std::span<const float> weights, std::span<float> maxima);
}
namespace cpu {
void attention_maxima(const View& queries, const HalfRows& keys, std::int64_t first, SoftmaxSpec spec,
                      std::span<const float> weights, std::span<float> maxima);
}

namespace cuda {
void attention_maxima(const View& queries, const HalfRows& keys, std::int64_t first, SoftmaxSpec spec,
                      std::span<const float> weights, std::span<float> maxima);
}

}  // namespace depthkv
