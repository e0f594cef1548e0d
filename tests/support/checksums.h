// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <map>
#include <string>

namespace depthkv {

// The attribute `checksum` of every dataset of a trace file, by the dataset's path. Equal maps: equal samples.
std::map<std::string, std::string> stored_checksums(const std::filesystem::path& file);

}  // namespace depthkv
