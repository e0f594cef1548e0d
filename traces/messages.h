// SPDX-License-Identifier: Apache-2.0
// What object headers and the heaps of attributes and links hold (HDF5 file format, IV.A.2), looked at one message at a
// time before libhdf5 decodes it. Each throws Error. Private to traces/.
#pragma once
#include <cstdint>
#include <vector>

#include "traces/raw_file.h"

namespace depthkv::h5 {

constexpr std::size_t kMostRank = 32;

struct Space {
  std::uint64_t count = 0;  // of values
  std::vector<std::uint64_t> extent;
  std::vector<std::uint64_t> most;  // what each may grow to; kUndefined: without end
};

Space check_dataspace(Fields fields);
std::size_t check_datatype(Fields& fields, int depth = 0);  // bytes of one value
void check_attribute(Fields fields);
void check_fill(Fields fields, bool old);
std::size_t check_filters(Fields fields);  // how many
void check_link(Fields fields);

}  // namespace depthkv::h5
