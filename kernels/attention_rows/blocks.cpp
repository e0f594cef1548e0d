// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention_rows/blocks.h"

#include <algorithm>

#include "kernels/attention_rows/attention_rows.h"
#include "kernels/half.h"

namespace depthkv::cpu {
namespace {

constexpr std::int64_t kTile = kKeyTile;

// Whole tiles, an odd number of them: lines a power of two apart would share few sets of the first-level cache.
std::size_t stride_for(std::int64_t tokens) {
  return static_cast<std::size_t>((tokens + kTile - 1) / kTile | 1) * kKeyTile;
}

}  // namespace

TransposedKeys::TransposedKeys(std::int64_t tokens, std::int64_t dimensions)
    : dimensions_(static_cast<std::size_t>(dimensions)), stride_(stride_for(tokens)), values_(stride_ * dimensions_) {}

void TransposedKeys::put(std::int64_t first, std::int64_t count, std::span<const float> keys) {
  for (std::size_t c = 0; c < dimensions_; ++c) {
    float* line = values_.data() + c * stride_ + first;
    for (std::int64_t j = 0; j < count; ++j) line[j] = keys[static_cast<std::size_t>(j) * dimensions_ + c];
  }
}

TransposedKeys::TransposedKeys(const View& keys, std::int64_t head) : TransposedKeys(keys.rows, keys.columns) {
  std::vector<float> tile(kKeyTile * dimensions_);
  for (std::int64_t first = 0; first < keys.rows; first += kTile) {
    const std::int64_t count = std::min(kTile, keys.rows - first);
    for (std::int64_t j = 0; j < count; ++j)
      std::ranges::copy(keys.row(head, first + j), tile.begin() + j * keys.columns);
    put(first, count, tile);
  }
}

TransposedKeys::TransposedKeys(const HalfRows& keys, std::int64_t head) : TransposedKeys(keys.rows, keys.columns) {
  std::vector<float> tile(kKeyTile * dimensions_);
  for (std::int64_t first = 0; first < keys.rows; first += kTile) {
    const std::int64_t count = std::min(kTile, keys.rows - first);
    for (std::int64_t j = 0; j < count; ++j)
      from_half(keys.row(head, first + j),
                std::span(tile).subspan(static_cast<std::size_t>(j) * dimensions_, dimensions_));
    put(first, count, tile);
  }
}

SoftmaxRows SoftmaxWalk::compute(const View& queries, std::int64_t row, std::size_t rows) {
  for (std::size_t r = 0; r < rows; ++r) begin_[r] = first_seen(seen_[r], spec_);
  const std::size_t first = *std::min_element(begin_.begin(), begin_.begin() + rows) / kKeyTile * kKeyTile;
  const std::size_t end = *std::max_element(seen_.begin(), seen_.begin() + rows);
  const std::size_t last = (end + kKeyTile - 1) / kKeyTile * kKeyTile;
  values_.resize(kBlockRows * keys_.stride());
  const SoftmaxBlock block{.queries = queries.row(0, row).data(),
                           .query_stride = static_cast<std::size_t>(queries.row_stride),
                           .rows = rows,
                           .dimensions = static_cast<std::size_t>(queries.columns),
                           .keys = keys_.data(),
                           .key_stride = keys_.stride(),
                           .begin = begin_.data(),
                           .end = seen_.data(),
                           .scale = static_cast<float>(spec_.scale),
                           .softcap = static_cast<float>(spec_.softcap),
                           .first = first,
                           .last = last};
  loops().softmax_block(block, values_.data(), keys_.stride(), inverse_.data());
  return {row, rows, first, last, values_.data(), keys_.stride(), std::span(inverse_).first(rows)};
}

}  // namespace depthkv::cpu
