// SPDX-License-Identifier: Apache-2.0
#include "kernels/loops/loops.h"
#include "kernels/row_norms/row_norms.h"

namespace depthkv::cpu {

Tensor row_norms(const View& rows, Norm norm) {
  Tensor norms = Tensor::unwritten(rows.heads, 1, rows.rows);
  for (std::int64_t h = 0; h < rows.heads; ++h)
    loops().row_norms({.values = rows.data + h * rows.head_stride,
                       .stride = static_cast<std::size_t>(rows.row_stride),
                       .rows = static_cast<std::size_t>(rows.rows),
                       .columns = static_cast<std::size_t>(rows.columns)},
                      norm == Norm::l2, norms.row(h, 0).data());
  return norms;
}

}  // namespace depthkv::cpu
