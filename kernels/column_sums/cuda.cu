// SPDX-License-Identifier: Apache-2.0
#include "kernels/column_sums/column_sums.h"
#include "kernels/column_sums/device.cuh"
#include "kernels/device_lane.h"

namespace depthkv::cuda {

Tensor column_sums(const View& rows) {
  Tensor sums(rows.heads, 1, rows.columns);
  if (sums.empty()) return sums;
  in_parts(rows.heads, 1, [&](Lane& lane, std::int64_t head, std::int64_t heads) {
    const float* there = lane.upload(rows.head_range(head, heads), rows.columns);
    const auto count = static_cast<std::size_t>(heads * rows.columns);
    auto* out = lane.room<float>(count);
    const auto blocks = static_cast<unsigned>((rows.columns + kColumnThreads - 1) / kColumnThreads);
    launch({.grid = {blocks, static_cast<unsigned>(heads)}, .block = {kColumnThreads}, .stream = lane.stream()},
           column_sums_kernel, there, out, rows.rows, rows.columns);
    const auto found = lane.download(out, count);
    lane.wait();
    std::ranges::copy(found, sums.row(head, 0).data());
  });
  return sums;
}

}  // namespace depthkv::cuda
