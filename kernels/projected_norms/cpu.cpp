// SPDX-License-Identifier: Apache-2.0
// Blocks of four rows by sixteen outputs stay in registers over the whole inner dimension; a product is folded into the
// norms as soon as it is complete.
#include <array>
#include <cmath>

#include "kernels/lanes.h"
#include "kernels/projected_norms/projected_norms.h"

namespace depthkv::cpu {
namespace {

constexpr std::int64_t kRows = 4;
constexpr std::int64_t kVectors = 2;
constexpr std::int64_t kOutputs = kVectors * static_cast<std::int64_t>(kLanes);

struct Sums {
  double l1 = 0;
  double l2 = 0;
};
using RowSums = std::array<Sums, kRows>;

void fold(const float* products, std::int64_t count, Sums& sums) {
  float l1 = 0;
  float l2 = 0;
  for (std::int64_t j = 0; j < count; ++j) {
    l1 += std::abs(products[j]);
    l2 += products[j] * products[j];
  }
  sums.l1 += static_cast<double>(l1);
  sums.l2 += static_cast<double>(l2);
}

// Four rows (the last ones repeated where fewer are left) times kOutputs columns of one head from `first` on.
void block(const std::array<const float*, kRows>& rows, const View& weights, std::int64_t head, std::int64_t first,
           RowSums& sums) {
  std::array<std::array<Lanes, kVectors>, kRows> products{};
  for (std::int64_t c = 0; c < weights.rows; ++c) {
    const float* w = weights.row(head, c).data() + first;
    const Lanes w0 = load(w);
    const Lanes w1 = load(w + kLanes);
    for (std::size_t r = 0; r < kRows; ++r) {
      const Lanes x = all(rows[r][c]);
      products[r][0] += x * w0;
      products[r][1] += x * w1;
    }
  }
  std::array<float, kOutputs> line{};
  for (std::size_t r = 0; r < kRows; ++r) {
    for (std::size_t v = 0; v < kVectors; ++v) store(line.data() + v * kLanes, products[r][v]);
    fold(line.data(), kOutputs, sums[r]);
  }
}

// The columns that don't fill a block.
void rest(const std::array<const float*, kRows>& rows, const View& weights, std::int64_t head, std::int64_t first,
          RowSums& sums) {
  for (std::size_t r = 0; r < kRows; ++r) {
    for (std::int64_t j = first; j < weights.columns; ++j) {
      float product = 0;
      for (std::int64_t c = 0; c < weights.rows; ++c)
        product += rows[r][c] * weights.row(head, c)[static_cast<std::size_t>(j)];
      fold(&product, 1, sums[r]);
    }
  }
}

}  // namespace

Tensor projected_norms(const View& rows, const View& weights) {
  const std::int64_t group = weights.heads / rows.heads;
  Tensor norms(weights.heads, rows.rows, 2);
  for (std::int64_t h = 0; h < weights.heads; ++h) {
    for (std::int64_t first = 0; first < rows.rows; first += kRows) {
      std::array<const float*, kRows> four{};
      for (std::int64_t r = 0; r < kRows; ++r)
        four[static_cast<std::size_t>(r)] = rows.row(h / group, std::min(first + r, rows.rows - 1)).data();
      RowSums sums{};
      std::int64_t j = 0;
      for (; j + kOutputs <= weights.columns; j += kOutputs) block(four, weights, h, j, sums);
      rest(four, weights, h, j, sums);
      for (std::int64_t r = first; r < std::min(first + kRows, rows.rows); ++r) {
        const Sums& of_row = sums[static_cast<std::size_t>(r - first)];
        norms.row(h, r)[0] = static_cast<float>(of_row.l1);
        norms.row(h, r)[1] = static_cast<float>(std::sqrt(of_row.l2));
      }
    }
  }
  return norms;
}

}  // namespace depthkv::cpu
