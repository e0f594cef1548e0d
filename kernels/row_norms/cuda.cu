// SPDX-License-Identifier: Apache-2.0
#include "kernels/device_lane.h"
#include "kernels/row_norms/device.cuh"
#include "kernels/row_norms/row_norms.h"

namespace depthkv::cuda {

Tensor row_norms(const View& rows, Norm norm) {
  Tensor norms(rows.heads, 1, rows.rows);
  if (norms.empty()) return norms;
  in_parts(rows.heads, 1, [&](Lane& lane, std::int64_t head, std::int64_t heads) {
    const std::int64_t count = heads * rows.rows;
    const float* there = lane.upload(rows.head_range(head, heads), rows.columns);
    auto* out = lane.room<float>(static_cast<std::size_t>(count));
    const auto blocks = static_cast<unsigned>((count + kBlockNorms - 1) / kBlockNorms);
    launch({.grid = {blocks}, .block = {kNormThreads}, .stream = lane.stream()}, row_norms_kernel, there, count,
           static_cast<int>(rows.columns), norm == Norm::l2 ? 1 : 0, out);
    const auto found = lane.download(out, static_cast<std::size_t>(count));
    lane.wait();
    std::ranges::copy(found, norms.row(head, 0).data());
  });
  return norms;
}

}  // namespace depthkv::cuda
