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

template <class ReadKey>
void TransposedKeys::fill(std::int64_t tokens, ReadKey read) {
  std::vector<float> tile(kKeyTile * dimensions_);
  for (std::int64_t first = 0; first < tokens; first += kTile) {
    const std::int64_t count = std::min(kTile, tokens - first);
    for (std::int64_t j = 0; j < count; ++j)
      read(first + j, std::span(tile).subspan(static_cast<std::size_t>(j) * dimensions_, dimensions_));
    for (std::size_t c = 0; c < dimensions_; ++c) {
      float* line = values_.data() + c * stride_ + first;
      for (std::int64_t j = 0; j < count; ++j) line[j] = tile[static_cast<std::size_t>(j) * dimensions_ + c];
    }
  }
}

TransposedKeys::TransposedKeys(const View& keys, std::int64_t head)
    : dimensions_(static_cast<std::size_t>(keys.columns)),
      stride_(stride_for(keys.rows)),
      values_(stride_ * dimensions_) {
  fill(keys.rows, [&](std::int64_t j, std::span<float> out) { std::ranges::copy(keys.row(head, j), out.begin()); });
}

TransposedKeys::TransposedKeys(const HalfRows& keys, std::int64_t head)
    : dimensions_(static_cast<std::size_t>(keys.columns)),
      stride_(stride_for(keys.rows)),
      values_(stride_ * dimensions_) {
  fill(keys.rows, [&](std::int64_t j, std::span<float> out) { from_half(keys.row(head, j), out); });
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
