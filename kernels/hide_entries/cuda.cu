// SPDX-License-Identifier: Apache-2.0
#include "kernels/device_lane.h"
#include "kernels/hide_entries/device.cuh"
#include "kernels/hide_entries/hide_entries.h"

namespace depthkv::cuda {
namespace {

// Logits on the device.
void hide(Lane& lane, const Logits& there, const ColumnSets& hidden, std::span<const std::uint32_t> row_sets) {
  const bool resident = device_of(hidden.bits).has_value();
  const HideBlock block{
      .logits = there.data,
      .bits = resident
                  ? hidden.bits
                  : lane.upload(std::span(hidden.bits, static_cast<std::size_t>(hidden.heads) * hidden.head_words())),
      .row_sets = lane.upload(row_sets),
      .width = there.width,
      .words = hidden.words,
      .rows = static_cast<unsigned>(there.rows),
      .group = static_cast<unsigned>(there.heads / hidden.heads),
      .sets = static_cast<unsigned>(hidden.sets)};
  // A row may begin up to three columns behind a multiple of 16 bytes.
  const std::int64_t blocks = (there.width + 3 + kHideColumns - 1) / kHideColumns;
  launch({.grid = {static_cast<unsigned>(there.heads * there.rows), static_cast<unsigned>(blocks)},
          .block = {kHideThreads},
          .stream = lane.stream()},
         hide_entries_kernel, block);
}

}  // namespace

void hide_entries(const Logits& logits, const ColumnSets& hidden, std::span<const std::uint32_t> row_sets) {
  if (logits.heads * logits.rows * logits.width == 0 || hidden.words == 0) return;
  if (device_of(logits.data)) {
    const UseLane lane;
    hide(*lane, logits, hidden, row_sets);
    lane->wait();
    return;
  }
  const std::int64_t group = logits.heads / hidden.heads;
  in_parts(hidden.heads, 1, [&](Lane& lane, std::int64_t head, std::int64_t heads) {
    const Logits part = logits.head_range(head * group, heads * group);
    const auto count = static_cast<std::size_t>(part.heads * part.rows * part.width);
    float* there = lane.upload(std::span<const float>(part.data, count));
    hide(lane, {there, part.heads, part.rows, part.width}, hidden.head_range(head, heads), row_sets);
    const auto found = lane.download(there, count);
    lane.wait();
    std::ranges::copy(found, part.data);
  });
}

}  // namespace depthkv::cuda
