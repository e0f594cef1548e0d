// SPDX-License-Identifier: Apache-2.0
#include "kernels/device_lane.h"
#include "kernels/projected_norms/device.cuh"
#include "kernels/projected_norms/projected_norms.h"

namespace depthkv::cuda {
namespace {

// [head][dimensions][column], with zeros for the dimensions behind the last.
const float* upload_weights(Lane& lane, const View& weights, std::int64_t dimensions) {
  const std::vector<float> zeros(static_cast<std::size_t>(weights.columns));
  std::vector<const float*> rows;
  for (std::int64_t h = 0; h < weights.heads; ++h)
    for (std::int64_t c = 0; c < dimensions; ++c)
      rows.push_back(c < weights.rows ? weights.row(h, c).data() : zeros.data());
  return lane.upload_rows(rows, zeros.size());
}

}  // namespace

Tensor projected_norms(const View& rows, const View& weights) {
  Tensor norms(weights.heads, rows.rows, 2);
  if (norms.empty()) return norms;
  const std::int64_t group = weights.heads / rows.heads;
  const std::int64_t dimensions = (rows.columns + kChunk - 1) / kChunk * kChunk;
  in_parts(rows.heads, 1, [&](Lane& lane, std::int64_t head, std::int64_t heads) {
    const ProjectionBlock block{lane.upload(rows.head_range(head, heads), dimensions),
                                upload_weights(lane, weights.head_range(head * group, heads * group), dimensions),
                                static_cast<int>(dimensions),
                                static_cast<int>(rows.rows),
                                static_cast<int>(weights.columns),
                                static_cast<int>(group)};
    const auto count = static_cast<std::size_t>(heads * group * rows.rows * 2);
    auto* out = lane.room<float>(count);
    const auto blocks = static_cast<unsigned>((rows.rows + kHeld - 1) / kHeld);
    launch({.grid = {blocks, static_cast<unsigned>(heads * group)}, .block = {kTileThreads}, .stream = lane.stream()},
           projected_norms_kernel, block, out);
    const auto found = lane.download(out, count);
    lane.wait();
    std::ranges::copy(found, norms.row(head * group, 0).data());
  });
  return norms;
}

}  // namespace depthkv::cuda
