// SPDX-License-Identifier: Apache-2.0
// B-trees of both versions (HDF5 file format, III.A), walked node by node before libhdf5 does. Each throws Error.
// Private to traces/.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "traces/raw_file.h"

namespace depthkv::h5 {

// A B-tree of version 1: every key of every node, and with the key before it whatever hangs on the lowest nodes.
struct OldTree {
  std::uint8_t type = 0;
  std::uint64_t key_bytes = 0;
  std::function<void(Fields key)> check_key;
  std::function<void(Fields key, std::uint64_t child)> check_child;
};
void walk_old_tree(RawFile& file, std::uint64_t address, const OldTree& tree, const std::string& name);

// A B-tree of version 2: every record, wherever it is. HDF5 lets nobody choose these numbers, so a header that has
// others is damaged.
struct Tree {
  std::uint8_t type = 0;
  std::uint64_t node_bytes = 0;
  std::uint64_t record_bytes = 0;
  std::uint64_t most_depth = 0;
};
void walk_tree(RawFile& file, std::uint64_t address, const Tree& tree, const std::string& name,
               const std::function<void(Fields)>& record);

constexpr std::uint8_t kSplit = 100;  // percent of a full node, of every tree of version 2
constexpr std::uint8_t kMerge = 40;

}  // namespace depthkv::h5
