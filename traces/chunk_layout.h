// SPDX-License-Identifier: Apache-2.0
// How a dataset's values lie in the file (HDF5 file format, IV.A.2.i), and the indices by which chunks are found
// (III.A and VII), looked at before libhdf5 walks them. Each throws Error. Private to traces/.
#pragma once
#include <cstdint>
#include <vector>

#include "traces/messages.h"
#include "traces/raw_file.h"

namespace depthkv::h5 {

// By its number in the file; layouts of version 3 have a B-tree of version 1 and no number.
enum class IndexKind : std::uint8_t { old_tree = 0, single = 1, implicit = 2, fixed = 3, extensible = 4, tree = 5 };

struct ChunkLayout {
  std::vector<std::uint64_t> extent;  // of a chunk; the last one is the size of a value. Empty: not chunked
  std::uint64_t bytes = 0;            // of a chunk, before its filters
  IndexKind index = IndexKind::old_tree;
  std::uint64_t address = kUndefined;  // of the index
  bool sized = false;                  // a single chunk says how long it is, as filtered ones do
  std::uint64_t stored = 0;            // how long
};

ChunkLayout check_layout(Fields fields, const RawFile& file);
void check_chunk_index(RawFile& file, const ChunkLayout& chunks, const Space& space, bool filtered,
                       const std::string& name);

}  // namespace depthkv::h5
