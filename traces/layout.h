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
inline constexpr const char* kWeightsFormat = "depthkv-weights";
inline constexpr const char* kWeightsFile = "weights.h5";
inline constexpr const char* kChecksum = "checksum";  // attribute of every dataset

inline constexpr const char* kSoftmax = "softmax";  // attribute of a sample: where its attention comes from
inline constexpr const char* kEngine = "engine";
inline constexpr const char* kRecomputed = "recomputed";

inline std::string layer_group(int layer) { return "layers/" + std::to_string(layer); }

inline bool by_rows(Channel channel) {
  return channel == Channel::keys || channel == Channel::values || channel == Channel::queries ||
         channel == Channel::attention || channel == Channel::value_output_norms;
}

inline h5::Type type_of(Channel channel) {
  const bool half =
      (by_rows(channel) && channel != Channel::value_output_norms) || channel == Channel::output_projection;
  return half ? h5::Type::f16 : h5::Type::f32;
}

// Rows of a chunk of what is written at once.
inline hsize_t whole_chunk_rows(Channel channel) { return channel == Channel::attention_cosines ? kRowsPerChunk : 1; }

// A channel's extent in one layer; `rows` is the number of tokens or of recorded query rows.
inline h5::Extent extent(Channel channel, const ModelCard& model, int index, std::int64_t rows,
                         const Segments& segments) {
  const LayerShape& layer = model.layers.at(static_cast<std::size_t>(index));
  const auto size = [](std::int64_t x) { return static_cast<hsize_t>(x); };
  switch (channel) {
    case Channel::keys:
    case Channel::values:
      return {size(rows), size(layer.kv_heads), size(layer.head_dim)};
    case Channel::queries:
      return {size(rows), size(layer.query_heads), size(layer.head_dim)};
    case Channel::column_sums:
      return {2, size(layer.query_heads), size(segments.prompt_end)};
    case Channel::query_mean:
      return {2, size(layer.query_heads), size(layer.head_dim)};
    case Channel::query_second_moment:
      return {2, size(layer.query_heads), size(layer.head_dim), size(layer.head_dim)};
    case Channel::value_output_norms:
      return {size(rows), size(layer.query_heads), 2};
    case Channel::hidden_mean:
    case Channel::hidden_unit_mean:
      return {kStages.size(), size(model.embedding)};
    case Channel::hidden_scalars:
      return {kStages.size(), kHiddenScalars.size()};
    case Channel::attention_cosines:
      return {size(segments.prompt_end), 2};
    case Channel::repeat_max:
      return {kRepeats.size(), size(layer.query_heads), size(segments.prompt_end)};
    case Channel::output_projection:
      return {size(std::int64_t{layer.query_heads} * layer.head_dim), size(model.embedding)};
    case Channel::attention:
      break;
  }
  return {size(layer.query_heads), size(rows), size(rows)};
}

}  // namespace depthkv::layout
