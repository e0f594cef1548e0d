// SPDX-License-Identifier: Apache-2.0
// attention_maxima: the most that every key receives from one row of a block of causal rows, without keeping them.
//
// queries, keys and first as in attention_sums; weights [W][R], W >= 1, each finite and at least 0. maxima [W][H][T]
// becomes the larger of itself and weights[w][r] * A[h, r, j] over all rows r, with A the rows of attention_rows; where
// no row sees a key it stays. R = 0 changes nothing. A row with NaN makes NaN of every key that it sees, and NaN stays.
// The result depends on neither the order nor the grouping of rows. The CPU and CUDA compute A as attention_rows does,
// to the bit.
#pragma once
#include <span>

#include "depthkv/ops.h"
#include "kernels/attention_sums/attention_sums.h"

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
// In device memory.
struct DeviceWeights {
  const float* values = nullptr;  // [W][R]
  std::int64_t count = 0;         // W
};
// Of what lies in device memory, as attention_sums has it: scales [2][H][R] is scratch, maxima [W][H][T] is raised.
void attention_maxima(const DeviceAttention& in, SoftmaxSpec spec, DeviceWeights weights, float* scales, float* maxima,
                      void* stream);
// Of host memory. The CPU's bits.
void attention_maxima(const View& queries, const HalfRows& keys, std::int64_t first, SoftmaxSpec spec,
                      std::span<const float> weights, std::span<float> maxima);
}  // namespace cuda

}  // namespace depthkv
