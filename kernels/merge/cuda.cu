// SPDX-License-Identifier: Apache-2.0
#include "kernels/device_lane.h"
#include "kernels/merge/device.cuh"
#include "kernels/merge/merge.h"

namespace depthkv::cuda {

Nearest nearest_kept(const View& keys, std::span<const std::uint32_t> kept, std::span<const std::uint32_t> dropped) {
  Nearest nearest{std::vector<std::uint32_t>(dropped.size()), std::vector<float>(dropped.size(), -1.0F)};
  if (kept.empty() || dropped.empty()) return nearest;
  const std::int64_t dimensions = (keys.columns + kChunk - 1) / kChunk * kChunk;
  const Tensor there = gather_rows(keys, kept);
  const std::vector<float> kept_inverse = inverse_norms(there.view());
  in_parts(static_cast<std::int64_t>(dropped.size()), 1, [&](Lane& lane, std::int64_t first, std::int64_t count) {
    const auto size = static_cast<std::size_t>(count);
    const Tensor away = gather_rows(keys, dropped.subspan(static_cast<std::size_t>(first), size));
    const std::vector<float> dropped_inverse = inverse_norms(away.view());
    const NearestBlock block{lane.upload(away.view(), dimensions),
                             lane.upload(there.view(), dimensions),
                             lane.upload(std::span(dropped_inverse)),
                             lane.upload(std::span(kept_inverse)),
                             static_cast<int>(count),
                             static_cast<int>(kept.size()),
                             static_cast<int>(dimensions)};
    auto* best = lane.room<unsigned>(size);
    auto* similarity = lane.room<float>(size);
    launch({.grid = {static_cast<unsigned>((count + kHeld - 1) / kHeld)},
            .block = {kTileThreads},
            .stream = lane.stream()},
           nearest_kernel, block, best, similarity);
    const auto found = lane.download(best, size);
    const auto cosines = lane.download(similarity, size);
    lane.wait();
    std::ranges::copy(found, nearest.kept.begin() + first);
    std::ranges::copy(cosines, nearest.similarity.begin() + first);
  });
  return nearest;
}

Tensor merge_rows(const MergeInput& input) {
  Tensor merged(1, static_cast<std::int64_t>(input.kept.size()), input.rows.columns);
  if (merged.empty()) return merged;
  const MergeLists lists = lists_of(input);
  const UseLane lane;
  const auto count = merged.values().size();
  const MergeBlock block{lane->upload(gather_rows(input.rows, input.kept).view(), input.rows.columns),
                         lane->upload(gather_rows(input.rows, input.dropped).view(), input.rows.columns),
                         lane->upload(std::span(lists.begins)),
                         lane->upload(std::span(lists.members)),
                         lane->upload(input.weights),
                         lane->upload(input.shares),
                         static_cast<long long>(count),
                         static_cast<int>(input.rows.columns)};
  auto* out = lane->room<float>(count);
  launch({.grid = {static_cast<unsigned>((count + kMergeThreads - 1) / kMergeThreads)},
          .block = {kMergeThreads},
          .stream = lane->stream()},
         merge_rows_kernel, block, out);
  const auto found = lane->download(out, count);
  lane->wait();
  std::ranges::copy(found, merged.values().begin());
  return merged;
}

}  // namespace depthkv::cuda
