// SPDX-License-Identifier: Apache-2.0
// What ops that multiply rows with keys share: keys laid out for the loops, and a walk over blocks of rows. Private to
// the CPU back end.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "depthkv/ops.h"
#include "kernels/loops/loops.h"
#include "kernels/scratch.h"

namespace depthkv::cpu {

// One head's keys as [tile][d][kKeyTile], zeros beyond the last, so that the products of neighbouring keys are computed
// side by side and a tile stays in the first-level cache while a block of rows meets it.
class TransposedKeys {
 public:
  TransposedKeys(const View& keys, std::int64_t head);
  TransposedKeys(const HalfRows& keys, std::int64_t head);

  const float* data() const { return values_.data(); }
  // Keys in all, with those that fill up the last tile.
  std::size_t padded() const { return padded_; }

 private:
  // read(position, out [d]) gives a key.
  template <class ReadKey>
  void fill(std::int64_t tokens, ReadKey read);

  std::size_t dimensions_;
  std::size_t padded_;
  Scratch values_;
};

// Rows of one query head whose softmax, but for the division, is in `values` [rows][stride]: 0 where a row doesn't see.
struct SoftmaxRows {
  std::int64_t first_row = 0;
  std::size_t rows = 0;
  std::size_t first = 0;  // columns that hold something, multiples of kKeyTile
  std::size_t last = 0;
  const float* values = nullptr;
  std::size_t stride = 0;
  std::span<const float> inverse;  // [rows]: what to multiply with
};

// Rows that are worked on at once: their logits at 4K keys fit into a core's second-level cache.
constexpr std::size_t kBlockRows = 24;

// Calls visit for every block of rows of one query head, queries [1, R, d], in rising order. position(r) is that of row
// r, whose key is the last that it sees.
class SoftmaxWalk {
 public:
  // Rows an odd number of tiles apart: a power of two would make them share few sets of the first-level cache.
  SoftmaxWalk(const TransposedKeys& keys, SoftmaxSpec spec)
      : keys_(keys), spec_(spec), stride_((keys.padded() / kKeyTile | 1) * kKeyTile), values_(kBlockRows * stride_) {}

  template <class Position, class Visit>
  void run(const View& queries, Position position, Visit visit) {
    for (std::int64_t row = 0; row < queries.rows; row += static_cast<std::int64_t>(kBlockRows)) {
      const std::size_t rows = std::min(kBlockRows, static_cast<std::size_t>(queries.rows - row));
      for (std::size_t r = 0; r < rows; ++r)
        seen_[r] = static_cast<std::size_t>(position(row + static_cast<std::int64_t>(r))) + 1;
      visit(compute(queries, row, rows));
    }
  }
  // The first key that a row of the last block sees, and how many there are up to its own.
  std::size_t begin(std::size_t row) const { return begin_[row]; }
  std::size_t seen(std::size_t row) const { return seen_[row]; }

 private:
  SoftmaxRows compute(const View& queries, std::int64_t row, std::size_t rows);

  const TransposedKeys& keys_;
  SoftmaxSpec spec_;
  std::size_t stride_;
  std::array<std::size_t, kBlockRows> begin_{};
  std::array<std::size_t, kBlockRows> seen_{};
  std::array<float, kBlockRows> inverse_{};
  Scratch values_;
};

// Calls visit(row, products) for every row of [1, R, d], with its products with all keys [padded].
template <class Visit>
void for_products(const TransposedKeys& keys, const View& rows, Visit visit) {
  const std::size_t stride = (keys.padded() / kKeyTile | 1) * kKeyTile;
  Scratch products(kBlockRows * stride);
  for (std::int64_t first = 0; first < rows.rows; first += static_cast<std::int64_t>(kBlockRows)) {
    const std::size_t count = std::min(kBlockRows, static_cast<std::size_t>(rows.rows - first));
    loops().scaled_products({.queries = rows.row(0, first).data(),
                             .query_stride = static_cast<std::size_t>(rows.row_stride),
                             .rows = count,
                             .dimensions = static_cast<std::size_t>(rows.columns),
                             .keys = keys.data(),
                             .last = keys.padded()},
                            products.data(), stride);
    for (std::size_t r = 0; r < count; ++r)
      visit(first + static_cast<std::int64_t>(r), static_cast<const float*>(products.data() + r * stride));
  }
}

}  // namespace depthkv::cpu
