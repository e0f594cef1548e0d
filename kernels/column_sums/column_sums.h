// SPDX-License-Identifier: Apache-2.0
// column_sums: rows [H, R, n] summed over R. Returns [H, 1, n].
// Sums are taken in double, rows in rising order, and rounded
// to float once. No rows: zeros. NaN spreads down its column.
#pragma once
#include "depthkv/tensor.h"

namespace depthkv {

namespace reference {
Tensor column_sums(const View& rows);
}
namespace cpu {
Tensor column_sums(const View& rows);
// Adds one head's rows [1, R, n] to sums [n]; the sums of blocks of rows are the bits of the sums of all.
void add_rows(const View& rows, std::span<double> sums);
}  // namespace cpu
namespace cuda {
// The same bits as the CPU's: each column is summed by one
// thread, in the same order. Throws Error if a CUDA call fails.
Tensor column_sums(const View& rows);
}  // namespace cuda

}  // namespace depthkv
