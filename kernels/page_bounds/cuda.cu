// SPDX-License-Identifier: Apache-2.0
#include "kernels/device_lane.h"
#include "kernels/page_bounds/device.cuh"
#include "kernels/page_bounds/page_bounds.h"

namespace depthkv::cuda {

PageBounds page_bounds(const View& keys, std::int64_t size) {
  const std::int64_t pages = pages_of(keys.rows, size);
  PageBounds bounds{Tensor(keys.heads, pages, keys.columns), Tensor(keys.heads, pages, keys.columns)};
  if (bounds.least.empty()) return bounds;
  in_parts(keys.heads, 1, [&](Lane& lane, std::int64_t head, std::int64_t heads) {
    const PageBlock block{lane.upload(keys.head_range(head, heads), keys.columns), static_cast<int>(keys.rows),
                          static_cast<int>(keys.columns), static_cast<int>(std::min(size, keys.rows)),
                          static_cast<int>(pages)};
    const auto count = static_cast<std::size_t>(heads * pages * keys.columns);
    auto* least = lane.room<float>(count);
    auto* most = lane.room<float>(count);
    const auto blocks = static_cast<unsigned>((pages * keys.columns + kPageThreads - 1) / kPageThreads);
    launch({.grid = {blocks, static_cast<unsigned>(heads)}, .block = {kPageThreads}, .stream = lane.stream()},
           page_bounds_kernel, block, least, most);
    const auto low = lane.download(least, count);
    const auto high = lane.download(most, count);
    lane.wait();
    std::ranges::copy(low, bounds.least.row(head, 0).data());
    std::ranges::copy(high, bounds.most.row(head, 0).data());
  });
  return bounds;
}

Tensor page_scores(const View& queries, const PageBounds& bounds) {
  Tensor scores(queries.heads, queries.rows, bounds.most.rows());
  if (scores.empty()) return scores;
  const std::int64_t group = queries.heads / bounds.most.heads();
  const Tensor split = split_by_sign(queries);
  const Tensor both = side_by_side(bounds);
  const std::int64_t dimensions = (both.columns() + kChunk - 1) / kChunk * kChunk;
  in_parts(both.heads(), 1, [&](Lane& lane, std::int64_t head, std::int64_t heads) {
    const ProductBlock block{lane.upload(split.view().head_range(head * group, heads * group), dimensions),
                             lane.upload(both.view().head_range(head, heads), dimensions),
                             static_cast<int>(dimensions),
                             static_cast<int>(queries.rows),
                             static_cast<int>(both.rows()),
                             static_cast<int>(group),
                             1.0F};
    const auto count = static_cast<std::size_t>(heads * group * queries.rows * both.rows());
    auto* out = lane.room<float>(count);
    launch({.grid = product_grid(block, heads * group), .block = {kTileThreads}, .stream = lane.stream()},
           product_rows_kernel, block, out);
    const auto found = lane.download(out, count);
    lane.wait();
    std::ranges::copy(found, scores.row(head * group, 0).data());
  });
  return scores;
}

}  // namespace depthkv::cuda
