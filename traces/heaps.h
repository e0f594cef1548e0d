// SPDX-License-Identifier: Apache-2.0
// The heaps and indices that object headers point to (HDF5 file format, III), looked at before libhdf5 walks them. Each
// throws Error. Private to traces/.
#pragma once
#include <cstdint>
#include <limits>
#include <string>

#include "traces/raw_file.h"

namespace depthkv::h5 {

constexpr std::uint64_t kUndefined = std::numeric_limits<std::uint64_t>::max();  // an address of nothing

// What the B-tree of version 2 over a heap lists, by its number in the file.
enum class IndexOf : std::uint8_t { link_names = 5, link_order = 6, attribute_names = 8, attribute_order = 9 };

void check_fractal_heap(RawFile& file, std::uint64_t address, const std::string& name);  // many links or attributes
void check_index(RawFile& file, std::uint64_t address, IndexOf what, const std::string& name);
void check_local_heap(RawFile& file, std::uint64_t address, const std::string& name);  // names of an old group
void check_group_tree(RawFile& file, std::uint64_t address, const std::string& name);  // and its B-tree of version 1

}  // namespace depthkv::h5
