// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>

namespace depthkv {

// The repository.
inline const std::filesystem::path kSource = DEPTHKV_SOURCE_DIR;

}  // namespace depthkv
