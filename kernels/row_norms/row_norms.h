// SPDX-License-Identifier: Apache-2.0
// row_norms: L1 or L2 norm of every row of [H, n, d]. Returns [H, 1, n].
// The CPU sums in double, eight columns apart; against the reference only
// the last bit of the rounded float may differ. NaN gives NaN.
#pragma once
#include "depthkv/ops.h"

namespace depthkv {

namespace reference {
Tensor row_norms(const View& rows, Norm norm);
}
namespace cpu {
Tensor row_norms(const View& rows, Norm norm);
}
namespace cuda {
// The CPU's bits.
Tensor row_norms(const View& rows, Norm norm);
}  // namespace cuda

}  // namespace depthkv
