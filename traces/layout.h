// SPDX-License-Identifier: Apache-2.0
// Names and shapes of the format, shared by writer and reader. FORMAT.md says what they mean.
#pragma once
#include <string>

#include "depthkv/trace.h"
#include "traces/h5.h"

namespace depthkv::layout {

inline constexpr const char* kFormat = "depthkv-trace";
inline constexpr const char* kIndexFormat = "depthkv-index";
inline constexpr std::int64_t kVersion = 1;
inline constexpr hsize_t kRowsPerChunk = 256;  // of keys, values, queries
inline constexpr hsize_t kTile = 128;          // of attention
inline constexpr const char* kIndexFile = "index.h5";

inline std::string layer_group(int layer) { return "layers/" + std::to_string(layer); }

// The layer's part of a channel's extent; `rows` is the number of tokens or of recorded query rows.
inline h5::Extent extent(Channel channel, const LayerShape& layer, std::int64_t rows, const Segments& segments) {
  const auto size = [](std::int64_t x) { return static_cast<hsize_t>(x); };
  switch (channel) {
    case Channel::keys:
    case Channel::values:
      return {size(rows), size(layer.kv_heads), size(layer.head_dim)};
    case Channel::queries:
      return {size(rows), size(layer.query_heads), size(layer.head_dim)};
    case Channel::column_sums:
      return {2, size(layer.query_heads), size(segments.prompt_end)};
    case Channel::attention:
      break;
  }
  return {size(layer.query_heads), size(rows), size(rows)};
}

}  // namespace depthkv::layout
