// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention_rows/blocks.h"

#include <algorithm>

#include "kernels/attention_rows/attention_rows.h"
#include "kernels/half.h"
#include "kernels/transpose.h"

namespace depthkv::cpu {
namespace {

constexpr std::int64_t kTile = kKeyTile;

std::size_t padded_to_tiles(std::int64_t tokens) {
  return static_cast<std::size_t>((tokens + kTile - 1) / kTile) * kKeyTile;
}

// keys [kKeyTile][dimensions] to [dimensions][kKeyTile].
void transpose_tile(const float* keys, std::size_t dimensions, float* out) {
  static_assert(kKeyTile % 8 == 0);
  for (std::size_t j = 0; j < kKeyTile; j += 8) {
    const float* from[8];
    for (std::size_t i = 0; i < 8; ++i) from[i] = keys + (j + i) * dimensions;
    std::size_t c = 0;
    for (; c + 8 <= dimensions; c += 8) {
      transpose_eight(from, out + c * kKeyTile + j, kKeyTile);
      for (const float*& row : from) row += 8;
    }
    for (std::size_t left = 0; c < dimensions; ++c, ++left)
      for (std::size_t i = 0; i < 8; ++i) out[c * kKeyTile + j + i] = from[i][left];
  }
}

}  // namespace

template <class ReadKey>
void TransposedKeys::fill(std::int64_t tokens, ReadKey read) {
  std::vector<float> tile(kKeyTile * dimensions_);
  for (std::int64_t first = 0; first < tokens; first += kTile) {
    const std::int64_t count = std::min(kTile, tokens - first);
    if (count < kTile) std::ranges::fill(tile, 0.0F);
    for (std::int64_t j = 0; j < count; ++j)
      read(first + j, std::span(tile).subspan(static_cast<std::size_t>(j) * dimensions_, dimensions_));
    transpose_tile(tile.data(), dimensions_, values_.data() + static_cast<std::size_t>(first) * dimensions_);
  }
}

TransposedKeys::TransposedKeys(const View& keys, std::int64_t head)
    : dimensions_(static_cast<std::size_t>(keys.columns)),
      padded_(padded_to_tiles(keys.rows)),
      values_(padded_ * dimensions_) {
  fill(keys.rows, [&](std::int64_t j, std::span<float> out) { std::ranges::copy(keys.row(head, j), out.begin()); });
}

TransposedKeys::TransposedKeys(const HalfRows& keys, std::int64_t head)
    : dimensions_(static_cast<std::size_t>(keys.columns)),
      padded_(padded_to_tiles(keys.rows)),
      values_(padded_ * dimensions_) {
  fill(keys.rows, [&](std::int64_t j, std::span<float> out) { from_half(keys.row(head, j), out); });
}

SoftmaxRows SoftmaxWalk::compute(const View& queries, std::int64_t row, std::size_t rows) {
  for (std::size_t r = 0; r < rows; ++r) begin_[r] = first_seen(seen_[r], spec_);
  const std::size_t first = *std::min_element(begin_.begin(), begin_.begin() + rows) / kKeyTile * kKeyTile;
  const std::size_t end = *std::max_element(seen_.begin(), seen_.begin() + rows);
  const std::size_t last = (end + kKeyTile - 1) / kKeyTile * kKeyTile;
  const SoftmaxBlock block{.queries = queries.row(0, row).data(),
                           .query_stride = static_cast<std::size_t>(queries.row_stride),
                           .rows = rows,
                           .dimensions = static_cast<std::size_t>(queries.columns),
                           .keys = keys_.data(),
                           .begin = begin_.data(),
                           .end = seen_.data(),
                           .scale = static_cast<float>(spec_.scale),
                           .softcap = static_cast<float>(spec_.softcap),
                           .first = first,
                           .last = last};
  loops().softmax_block(block, values_.data(), stride_, inverse_.data());
  return {row, rows, first, last, values_.data(), stride_, std::span(inverse_).first(rows)};
}

}  // namespace depthkv::cpu
