// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "kernels/checked.cuh"
#include "kernels/column_sums/column_sums.h"
#include "kernels/column_sums/device.cuh"

namespace depthkv::cuda {

Tensor column_sums(const View& rows) {
  constexpr unsigned kThreads = 256;
  Tensor sums(rows.heads, 1, rows.columns);
  if (sums.empty()) return sums;
  const auto heads = static_cast<std::size_t>(rows.heads);
  const auto count = static_cast<std::size_t>(rows.rows);
  const auto columns = static_cast<std::size_t>(rows.columns);
  const DeviceFloats in(std::max<std::size_t>(1, heads * count * columns));
  const DeviceFloats out(heads * columns);
  for (std::size_t h = 0; h < heads && count > 0; ++h) {
    check(cudaMemcpy2D(in.data() + h * count * columns, columns * sizeof(float),
                       rows.data + static_cast<std::int64_t>(h) * rows.head_stride,
                       static_cast<std::size_t>(rows.row_stride) * sizeof(float), columns * sizeof(float), count,
                       cudaMemcpyHostToDevice));
  }
  const dim3 grid(static_cast<unsigned>((columns + kThreads - 1) / kThreads), static_cast<unsigned>(heads));
  column_sums_kernel<<<grid, kThreads>>>(in.data(), out.data(), rows.rows, rows.columns);
  check(cudaGetLastError());
  check(cudaMemcpy(sums.values().data(), out.data(), heads * columns * sizeof(float), cudaMemcpyDeviceToHost));
  return sums;
}

}  // namespace depthkv::cuda
