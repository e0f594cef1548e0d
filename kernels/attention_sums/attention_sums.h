// SPDX-License-Identifier: Apache-2.0
// attention_sums: what every key receives from a block of causal rows, summed over the rows, without keeping them.
//
// queries [H, R, d] at positions first .. first + R - 1; keys [T, Hkv, d] in half precision as a cache holds them, T >=
// first + R; H a multiple of Hkv, query head h reads KV head h / (H / Hkv). A row's softmax is that of attention_rows.
// Adds to sums [H][T]. The reference adds up in double; the CPU takes exponentials in float, adds 24 rows in float and
// blocks of rows in double. NaN in a query
// spreads over the columns that its row sees, and on the CPU over those of the rows that were added with it.
#pragma once
#include <span>

#include "depthkv/ops.h"

namespace depthkv {

namespace reference {
void attention_sums(const View& queries, const HalfRows& keys, std::int64_t first, SoftmaxSpec spec,
                    std::span<double> sums);
}
namespace cpu {
void attention_sums(const View& queries, const HalfRows& keys, std::int64_t first, SoftmaxSpec spec,
                    std::span<double> sums);
}

namespace cuda {
struct DeviceAttention;  // launchers.h
// normalisers [H, R] is scratch, sums [H][T] is added to; both in device memory. Asynchronous on `stream`, a
// cudaStream_t; nothing is copied and nothing allocated. Exponentials in float, sums in double in one order: the same
// bits from run to run. Throws Error if the vectors can't be read as they lie, or if a launch fails.
void attention_sums(const DeviceAttention& in, SoftmaxSpec spec, float* normalisers, double* sums, void* stream);
// Queries and keys on the host, or both on this thread's device, which is where an engine may have them.
void attention_sums(const View& queries, const HalfRows& keys, std::int64_t first, SoftmaxSpec spec,
                    std::span<double> sums);
}  // namespace cuda

}  // namespace depthkv
