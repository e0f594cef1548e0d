// SPDX-License-Identifier: Apache-2.0
// Checks that stand between a file nobody vouches for and libhdf5, which trusts too much of what it reads:
// docs/decisions/007-what-a-sample-may-be.md says what each refuses and why. Every failure is an Error. Private to
// traces/.
#pragma once
#include "traces/h5.h"

namespace depthkv::h5 {

// Before libhdf5 sees the file: a superblock of a plain single file, without the parts that only exotic files have.
void check_superblock(const std::filesystem::path& file);

// A sample holds what belongs to it: hard links only, no way into other files. Then the header of what is linked.
void check_link(const Object& parent, const std::string& name, const std::string& full);

std::filesystem::path path_of(const Object& object);  // the file it is in

// Stored with filters that this build reads; with extents and chunks that a file of this size can hold.
void check_storage(const Object& dataset);

// Bytes of one value in the file. Of a variable-length value only the reference counts, which has a size of its own.
constexpr std::size_t kReferenceBytes = 16;
std::size_t stored_size(const Handle& type);

// Throws unless a file of this size can hold this many bytes, so that a small file can't make us allocate a lot.
void expect_justified(const Object& object, hsize_t count, hsize_t element_bytes);

}  // namespace depthkv::h5
