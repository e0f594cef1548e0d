// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

namespace depthkv {

// Whether the byte goes on with a code point that began before it. `text` has to be UTF-8 for this to mean anything.
constexpr bool is_continuation(char byte) { return (static_cast<unsigned char>(byte) & 0xc0U) == 0x80U; }

// Byte offset of every code point, and the end.
std::vector<std::int64_t> code_point_offsets(std::string_view text);

// Bytes of the longest beginning that is UTF-8; all of `text` if it is.
std::size_t valid_utf8(std::string_view text);

}  // namespace depthkv
