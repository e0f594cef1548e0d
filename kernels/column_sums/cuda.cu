// SPDX-License-Identifier: Apache-2.0
#include "kernels/column_sums/column_sums.h"
#include "kernels/column_sums/device.cuh"
#include "kernels/device_memory.h"

namespace depthkv::cuda {

Tensor column_sums(const View& rows) {
  Tensor sums(rows.heads, 1, rows.columns);
  if (sums.empty()) return sums;
  const auto heads = static_cast<std::size_t>(rows.heads);
  const auto count = static_cast<std::size_t>(rows.rows);
  const auto columns = static_cast<std::size_t>(rows.columns);
  const DeviceArray<float> in(heads * count * columns);
  const DeviceArray<float> out(heads * columns);
  for (std::size_t h = 0; h < heads && count > 0; ++h)
    copy_to_device(in.data() + h * count * columns,
                   StridedRows{rows.data + static_cast<std::int64_t>(h) * rows.head_stride, count,
                               columns * sizeof(float), static_cast<std::size_t>(rows.row_stride) * sizeof(float)});
  const auto blocks = static_cast<unsigned>((columns + kColumnThreads - 1) / kColumnThreads);
  launch({.grid = {blocks, static_cast<unsigned>(heads)}, .block = {kColumnThreads}}, column_sums_kernel, in.data(),
         out.data(), rows.rows, rows.columns);
  copy_to_host(sums.values().data(), out.data(), heads * columns * sizeof(float));
  return sums;
}

}  // namespace depthkv::cuda
