// SPDX-License-Identifier: Apache-2.0
#include "kernels/device_lane.h"
#include "kernels/quantise/device.cuh"
#include "kernels/quantise/quantise.h"

namespace depthkv::cuda {
namespace {

template <bool kAlongTokens>
void launch_groups(Lane& lane, const QuantiseBlock& block, std::int64_t heads) {
  const std::int64_t line = kAlongTokens ? block.tokens : block.channels;
  const std::int64_t groups = (line + block.size - 1) / block.size * (kAlongTokens ? block.channels : block.tokens);
  constexpr std::int64_t kBlockGroups = kQuantiseThreads / kGroupLanes<kAlongTokens>;
  const auto blocks = static_cast<unsigned>((groups + kBlockGroups - 1) / kBlockGroups);
  launch({.grid = {blocks, static_cast<unsigned>(heads)}, .block = {kQuantiseThreads}, .stream = lane.stream()},
         quantise_kernel<kAlongTokens>, block);
}

}  // namespace

Tensor quantise(const View& rows, QuantiseSpec spec) {
  const double levels = levels_of(spec);
  Tensor result(rows.heads, rows.rows, rows.columns);
  if (result.empty()) return result;
  const bool tokens = spec.along == QuantiseSpec::Along::tokens;
  in_parts(rows.heads, 1, [&](Lane& lane, std::int64_t head, std::int64_t heads) {
    const auto count = static_cast<std::size_t>(heads * rows.rows * rows.columns);
    const QuantiseBlock block{lane.upload(rows.head_range(head, heads), rows.columns),
                              lane.room<float>(count),
                              rows.rows,
                              rows.columns,
                              std::min(spec.size, tokens ? rows.rows : rows.columns),
                              levels};
    tokens ? launch_groups<true>(lane, block, heads) : launch_groups<false>(lane, block, heads);
    const auto found = lane.download(block.out, count);
    lane.wait();
    std::ranges::copy(found, result.row(head, 0).data());
  });
  return result;
}

}  // namespace depthkv::cuda
