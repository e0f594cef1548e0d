// SPDX-License-Identifier: Apache-2.0
// projected_norms: norms of rows after a projection, without keeping the products. rows [Hkv, R, d], weights [H, d, D];
// query head h reads rows of head h * Hkv / H. Returns [H, R, 2]: the L1 and the L2 norm of row * weights over the D
// outputs. The reference sums in double, the CPU in float, sixteen columns apart; CUDA takes
// products in float and sums in double.
#pragma once
#include "depthkv/tensor.h"

namespace depthkv {

namespace reference {
Tensor projected_norms(const View& rows, const View& weights);
}
namespace cpu {
Tensor projected_norms(const View& rows, const View& weights);
}
namespace cuda {
Tensor projected_norms(const View& rows, const View& weights);
}

}  // namespace depthkv
