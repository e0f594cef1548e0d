// SPDX-License-Identifier: Apache-2.0
// Compiled once per instruction set, as DEPTHKV_LOOPS; calls nothing that another source might share.
#include "kernels/loops/loops.h"

#include "kernels/loops/wide.h"

namespace depthkv {
namespace {

// What stays in registers: rows by vectors. The order in which a product's terms are added doesn't depend on it.
#ifdef __AVX512F__
constexpr std::size_t kRows = 8;
constexpr std::size_t kVectors = 2;
#else
constexpr std::size_t kRows = 6;
constexpr std::size_t kVectors = 1;
#endif
constexpr std::size_t kColumns = kVectors * kWide;
static_assert(kKeyTile % kColumns == 0 && kKeyTile == 2 * kWide);
static_assert(kNormRows % kRows == 0);

// Rows times as many columns of a matrix [dimensions][stride] as there are sums.
template <std::size_t Rows, std::size_t Vectors>
inline void products(const float* rows, std::size_t row_stride, const float* matrix, std::size_t stride,
                     std::size_t dimensions, Wide (&sums)[Rows][Vectors]) {
  for (auto& line : sums)
    for (Wide& sum : line) sum = all(0);
  for (std::size_t c = 0; c < dimensions; ++c) {
    Wide line[Vectors];
    for (std::size_t v = 0; v < Vectors; ++v) line[v] = load(matrix + c * stride + v * kWide);
    for (std::size_t r = 0; r < Rows; ++r) {
      const Wide x = all(rows[r * row_stride + c]);
      for (std::size_t v = 0; v < Vectors; ++v) sums[r][v] = fused(x, line[v], sums[r][v]);
    }
  }
}

template <std::size_t Rows>
inline void logits_of(const SoftmaxBlock& block, std::size_t row, std::size_t key, float* out, std::size_t stride) {
  Wide sums[Rows][kVectors];
  products(block.queries + row * block.query_stride, block.query_stride, block.keys + key, block.key_stride,
           block.dimensions, sums);
  for (std::size_t r = 0; r < Rows; ++r)
    for (std::size_t v = 0; v < kVectors; ++v)
      store(out + (row + r) * stride + key + v * kWide, sums[r][v] * all(block.scale));
}

void softmax_row(const SoftmaxBlock& block, std::size_t row, float* values, float& inverse) {
  constexpr float kHidden = -__builtin_inff();  // whose exponential is 0
  if (block.softcap > 0)
    for (std::size_t j = block.first; j < block.last; j += kWide)
      store(values + j, all(block.softcap) * tanh_of(load(values + j) / all(block.softcap)));
  for (std::size_t j = block.first; j < block.begin[row]; ++j) values[j] = kHidden;
  for (std::size_t j = block.end[row]; j < block.last; ++j) values[j] = kHidden;
  // Two of each, so that the next doesn't have to wait for the last.
  Wide tops[2] = {all(kHidden), all(kHidden)};
  for (std::size_t j = block.first; j < block.last; j += kKeyTile)
    for (std::size_t v = 0; v < 2; ++v) tops[v] = larger(load(values + j + v * kWide), tops[v]);
  const Wide most = all(largest_of(larger(tops[0], tops[1])));
  Wide sums[2] = {all(0), all(0)};
  for (std::size_t j = block.first; j < block.last; j += kKeyTile) {
    for (std::size_t v = 0; v < 2; ++v) {
      const Wide x = exp_of(load(values + j + v * kWide) - most);
      store(values + j + v * kWide, x);
      sums[v] = sums[v] + x;
    }
  }
  inverse = 1.0F / sum_of(sums[0] + sums[1]);
}

void softmax_block(const SoftmaxBlock& block, float* out, std::size_t stride, float* inverse) {
  for (std::size_t key = block.first; key < block.last; key += kColumns) {
    std::size_t row = 0;
    for (; row + kRows <= block.rows; row += kRows) logits_of<kRows>(block, row, key, out, stride);
    for (; row < block.rows; ++row) logits_of<1>(block, row, key, out, stride);
  }
  for (std::size_t row = 0; row < block.rows; ++row) softmax_row(block, row, out + row * stride, inverse[row]);
}

void add_weighted_rows(const float* values, std::size_t stride, const float* weights, std::size_t rows,
                       std::size_t first, std::size_t last, double* sums) {
  for (std::size_t j = first; j < last; j += kWide) {
    Wide sum = all(0);
    for (std::size_t r = 0; r < rows; ++r) sum = fused(load(values + r * stride + j), all(weights[r]), sum);
    float lanes[kWide];
    store(lanes, sum);
    for (std::size_t i = 0; i < kWide; ++i) sums[j + i] += static_cast<double>(lanes[i]);
  }
}

// Running sums of a row's norms.
struct NormSums {
  Wide l1, l2;
};

// A row's columns are added up in the same order for any number of rows and vectors.
template <std::size_t Rows, std::size_t Vectors>
inline void add_norms(const float* rows, std::size_t row_stride, const float* weights, std::size_t weight_stride,
                      std::size_t dimensions, NormSums* norms) {
  Wide sums[Rows][Vectors];
  products(rows, row_stride, weights, weight_stride, dimensions, sums);
  for (std::size_t r = 0; r < Rows; ++r) {
    for (std::size_t v = 0; v < Vectors; ++v) {
      norms[r].l1 = norms[r].l1 + magnitude(sums[r][v]);
      norms[r].l2 = fused(sums[r][v], sums[r][v], norms[r].l2);
    }
  }
}

template <std::size_t Vectors>
inline void add_columns(const float* rows, std::size_t row_stride, std::size_t count, const float* weights,
                        std::size_t weight_stride, std::size_t dimensions, NormSums* norms) {
  std::size_t r = 0;
  for (; r + kRows <= count; r += kRows)
    add_norms<kRows, Vectors>(rows + r * row_stride, row_stride, weights, weight_stride, dimensions, norms + r);
  for (; r < count; ++r)
    add_norms<1, Vectors>(rows + r * row_stride, row_stride, weights, weight_stride, dimensions, norms + r);
}

void projected_norms(const float* rows, std::size_t row_stride, std::size_t count, const float* weights,
                     std::size_t weight_stride, std::size_t dimensions, std::size_t columns, float* l1, float* l2) {
  NormSums norms[kNormRows];
  for (std::size_t r = 0; r < count; ++r) norms[r] = {all(0), all(0)};
  std::size_t column = 0;
  for (; column + kColumns <= columns; column += kColumns)
    add_columns<kVectors>(rows, row_stride, count, weights + column, weight_stride, dimensions, norms);
  for (; column + kWide <= columns; column += kWide)
    add_columns<1>(rows, row_stride, count, weights + column, weight_stride, dimensions, norms);
  for (std::size_t r = 0; r < count; ++r) {
    l1[r] = sum_of(norms[r].l1);
    l2[r] = sum_of(norms[r].l2);
    for (std::size_t j = column; j < columns; ++j) {
      float product = 0;
      for (std::size_t c = 0; c < dimensions; ++c)
        product = __builtin_fmaf(rows[r * row_stride + c], weights[c * weight_stride + j], product);
      l1[r] += __builtin_fabsf(product);
      l2[r] = __builtin_fmaf(product, product, l2[r]);
    }
    l2[r] = __builtin_sqrtf(l2[r]);
  }
}

// Lines [line, line + Rows) of the outer products, columns [column, column + Vectors * kWide).
template <std::size_t Rows, std::size_t Vectors>
inline void add_lines(const float (&transposed)[Rows][kMomentRows], const float* rows, std::size_t width,
                      std::size_t line, std::size_t column, double* sums) {
  Wide block[Rows][Vectors];
  products(&transposed[0][0], kMomentRows, rows + column, width, kMomentRows, block);
  for (std::size_t r = 0; r < Rows; ++r) {
    for (std::size_t v = 0; v < Vectors; ++v) {
      float lanes[kWide];
      store(lanes, block[r][v]);
      double* to = sums + (line + r) * width + column + v * kWide;
      for (std::size_t i = 0; i < kWide; ++i) to[i] += static_cast<double>(lanes[i]);
    }
  }
}

template <std::size_t Rows>
inline void add_lines(const float* rows, std::size_t width, std::size_t line, double* sums) {
  float transposed[Rows][kMomentRows];
  for (std::size_t r = 0; r < Rows; ++r)
    for (std::size_t c = 0; c < kMomentRows; ++c) transposed[r][c] = rows[c * width + line + r];
  std::size_t column = line / kColumns * kColumns;
  for (; column + kColumns <= width; column += kColumns)
    add_lines<Rows, kVectors>(transposed, rows, width, line, column, sums);
  for (; column + kWide <= width; column += kWide) add_lines<Rows, 1>(transposed, rows, width, line, column, sums);
  for (; column < width; ++column) {
    for (std::size_t r = 0; r < Rows; ++r) {
      float sum = 0;
      for (std::size_t c = 0; c < kMomentRows; ++c)
        sum = __builtin_fmaf(transposed[r][c], rows[c * width + column], sum);
      sums[(line + r) * width + column] += static_cast<double>(sum);
    }
  }
}

void add_products(const float* rows, std::size_t width, double* sums) {
  std::size_t line = 0;
  for (; line + kRows <= width; line += kRows) add_lines<kRows>(rows, width, line, sums);
  for (; line < width; ++line) add_lines<1>(rows, width, line, sums);
}

// Rows [first, first + kWalked) of a walk; a key's losses are added up in the same order for any number of rows.
#ifdef __AVX512F__
constexpr std::size_t kWalked = kWalkRows;
#else
constexpr std::size_t kWalked = 1;
#endif
constexpr std::size_t kWalkVectors = kWalkWidth / kWide;
static_assert(kWalkLanes == kWide && kWalkRows % kWalked == 0);

inline void add_key(const LossWalk& walk, std::size_t key, std::size_t row, Wide (&sums)[kWalked][kWalkVectors]) {
  Wide value[kWalkVectors];
  for (std::size_t v = 0; v < kWalkVectors; ++v) value[v] = load(walk.values + key * kWalkWidth + v * kWide);
  for (std::size_t r = 0; r < kWalked; ++r) {
    const Wide weight = all(walk.weights[key * kWalkRows + row + r]);
    for (std::size_t v = 0; v < kWalkVectors; ++v) sums[r][v] = fused(weight, value[v], sums[r][v]);
  }
}

void weighted_sums(const LossWalk& walk, float* out) {
  for (std::size_t row = 0; row < kWalkRows; row += kWalked) {
    Wide sums[kWalked][kWalkVectors];
    for (auto& line : sums)
      for (Wide& sum : line) sum = all(0);
    for (std::size_t key = 0; key < walk.keys; ++key) add_key(walk, key, row, sums);
    for (std::size_t r = 0; r < kWalked; ++r)
      for (std::size_t v = 0; v < kWalkVectors; ++v) store(out + (row + r) * kWalkWidth + v * kWide, sums[r][v]);
  }
}

void walk_losses(const LossWalk& walk, float* losses) {
  for (std::size_t row = 0; row < kWalkRows; row += kWalked) {
    Wide sums[kWalked][kWalkVectors];
    Wide missing[kWalked][kWalkVectors];
    for (std::size_t r = 0; r < kWalked; ++r) {
      for (std::size_t v = 0; v < kWalkVectors; ++v) {
        sums[r][v] = all(0);
        missing[r][v] = all(0) - load(walk.full + (row + r) * kWalkWidth + v * kWide);
      }
    }
    for (std::size_t key = 0; key < walk.priced; ++key) add_key(walk, key, row, sums);
    for (std::size_t key = walk.priced; key < walk.keys; ++key) {
      float* to = losses + (key - walk.priced) * kWalkLanes;
      Wide loss = load(to);
      for (std::size_t r = 0; r < kWalked; ++r) {
        const Wide inverse = all(walk.inverse[key * kWalkRows + row + r]);
        for (std::size_t v = 0; v < kWalkVectors; ++v) {
          const Wide gap = fused(sums[r][v], inverse, missing[r][v]);
          loss = fused(gap, gap, loss);
        }
      }
      store(to, loss);
      add_key(walk, key, row, sums);
    }
  }
}

}  // namespace

extern const Loops DEPTHKV_LOOPS;
const Loops DEPTHKV_LOOPS{softmax_block, add_weighted_rows, projected_norms, add_products, weighted_sums, walk_losses};

}  // namespace depthkv
