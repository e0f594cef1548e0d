// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

namespace depthkv {

// Counts and positions are signed; containers want them unsigned.
inline std::size_t to_size(std::int64_t value) { return static_cast<std::size_t>(value); }

}  // namespace depthkv
