// SPDX-License-Identifier: Apache-2.0
#include "kernels/device_lane.h"
#include "kernels/evidence_curves/device.cuh"
#include "kernels/evidence_curves/evidence_curves.h"

namespace depthkv::cuda {

Tensor evidence_curves(const Ranking& ranking, std::span<const std::uint8_t> marked) {
  const auto total = std::ranges::count_if(marked, [](std::uint8_t mark) { return mark != 0; });
  if (total == 0) return {};
  Tensor curves(ranking.heads(), 1, ranking.tokens() + 1);
  in_parts(ranking.heads(), 1, [&](Lane& lane, std::int64_t head, std::int64_t heads) {
    const std::span<const std::uint32_t> orders(ranking.head(head).data(),
                                                static_cast<std::size_t>(heads * ranking.tokens()));
    const unsigned* there = lane.upload(orders);
    const auto count = static_cast<std::size_t>(heads * curves.columns());
    auto* out = lane.room<float>(count);
    launch({.grid = {static_cast<unsigned>(heads)}, .block = {kScanThreads}, .stream = lane.stream()},
           evidence_curves_kernel, there, ranking.tokens(), lane.upload(marked), total, out);
    const auto found = lane.download(out, count);
    lane.wait();
    std::ranges::copy(found, curves.row(head, 0).data());
  });
  return curves;
}

}  // namespace depthkv::cuda
