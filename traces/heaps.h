// SPDX-License-Identifier: Apache-2.0
// The heaps that object headers point to (HDF5 file format, III.D, III.G), and the indices of what is in them, looked
// through before libhdf5 does. Each throws Error. Private to traces/.
#pragma once
#include <cstdint>
#include <string>

#include "traces/raw_file.h"

namespace depthkv::h5 {

// Many links or attributes of one object: messages in a fractal heap, indexed by their names and maybe by their order.
enum class Dense : std::uint8_t { links, attributes };

struct DenseStorage {
  std::uint64_t heap = kUndefined;
  std::uint64_t names = kUndefined;
  std::uint64_t order = kUndefined;
};
void check_dense(RawFile& file, Dense what, const DenseStorage& storage, const std::string& name);

// A group as HDF5 before 1.8 made it: names in a local heap, links in nodes that hang on a B-tree of version 1.
void check_old_group(RawFile& file, std::uint64_t tree, std::uint64_t heap, const std::string& name);

}  // namespace depthkv::h5
