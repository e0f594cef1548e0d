// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "depthkv/model.h"

namespace depthkv {
namespace {

// Little is gained by more, and the cells of a branch lengthen the attention of all others (docs/decisions/006).
constexpr std::int64_t kTogether = 32;
constexpr std::int64_t kShareOfMemory = 4;  // the branches' own cells take at most a quarter

std::int64_t bytes_per_cell(const ModelCard& card) {
  std::int64_t numbers = 0;
  for (const LayerShape& layer : card.layers) numbers += 2 * std::int64_t{layer.kv_heads} * layer.head_dim;
  return numbers * 2;  // half precision
}

}  // namespace

std::int64_t machine_memory() {
  std::int64_t bytes = static_cast<std::int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
  std::int64_t limit = 0;
  // "max" where there is no limit, which isn't a number.
  if (std::ifstream("/sys/fs/cgroup/memory.max") >> limit && limit > 0) bytes = std::min(bytes, limit);
  return bytes;
}

BranchRoom branch_room(const ModelCard& card, std::int64_t prefix, std::size_t branches, std::int64_t capacity,
                       std::int64_t memory) {
  const std::int64_t each = std::max<std::int64_t>(capacity, 1);
  const std::int64_t cell = bytes_per_cell(card);
  const std::int64_t fitting = memory / kShareOfMemory / (each * cell);
  BranchRoom room;
  room.together = std::clamp<std::int64_t>(std::min(kTogether, fitting), 1,
                                           std::max<std::int64_t>(static_cast<std::int64_t>(branches), 1));
  room.cells = prefix + room.together * each;
  room.bytes = room.cells * cell;
  return room;
}

}  // namespace depthkv
