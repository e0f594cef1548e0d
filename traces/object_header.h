// SPDX-License-Identifier: Apache-2.0
// Reads an object's header (HDF5 file format, IV.A) before libhdf5 does, which copies and divides by what it finds
// there without looking. Private to traces/.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>

namespace depthkv::h5 {

// Throws Error unless every message of the header at this address lies where it says, is as long as its parts, and is
// of a kind that a sample may use. `name` is the object's, for messages.
void check_object_header(const std::filesystem::path& file, std::uint64_t address, const std::string& name);

}  // namespace depthkv::h5
