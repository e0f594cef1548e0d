// SPDX-License-Identifier: Apache-2.0
// Blocks by head and by part of the prompt. Rows of the context and of the rest of the prompt are added up apart: the
// later cut's statistic is both together.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "depthkv/model.h"

namespace depthkv {

// A block's vectors of d numbers, stored [row][head][d], by head.
inline View by_head(const LayerBlock& block, std::int64_t heads, std::int64_t d) {
  return {block.data.data(), heads, block.rows, d, d, heads * d};
}

inline constexpr std::size_t kPromptParts = 2;

// Rows of one task: enough that laying out the keys anew costs a few per cent.
inline constexpr std::int64_t kTaskRows = 256;

// Rows of a block that belong to one part of the prompt.
struct PartRows {
  std::size_t part = 0;
  std::int64_t first = 0;  // within the block
  std::int64_t count = 0;
};

// Rows [first, first + rows) by part; rows of the answer belong to none.
inline std::vector<PartRows> parts_of(const Segments& segments, std::int64_t first, std::int64_t rows) {
  const std::int64_t bounds[kPromptParts + 1] = {0, segments.context.end, segments.prompt_end};
  std::vector<PartRows> parts;
  for (std::size_t part = 0; part < kPromptParts; ++part) {
    const std::int64_t begin = std::max(first, bounds[part]);
    const std::int64_t end = std::min(first + rows, bounds[part + 1]);
    if (begin < end) parts.push_back({part, begin - first, end - begin});
  }
  return parts;
}

}  // namespace depthkv
