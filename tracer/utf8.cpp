// SPDX-License-Identifier: Apache-2.0
#include "tracer/utf8.h"

#include <utf8proc.h>

namespace depthkv {

std::vector<std::int64_t> code_point_offsets(std::string_view text) {
  std::vector<std::int64_t> offsets;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (!is_continuation(text[i])) offsets.push_back(static_cast<std::int64_t>(i));
  }
  offsets.push_back(static_cast<std::int64_t>(text.size()));
  return offsets;
}

std::size_t valid_utf8(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    utf8proc_int32_t code_point = 0;
    const auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + at,
                                         static_cast<utf8proc_ssize_t>(text.size() - at), &code_point);
    if (length < 1) break;
    at += static_cast<std::size_t>(length);
  }
  return at;
}

}  // namespace depthkv
