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

// Rows times columns [first, first + kColumns) of a matrix [dimensions][stride].
template <std::size_t Rows>
inline void products(const float* rows, std::size_t row_stride, const float* matrix, std::size_t stride,
                     std::size_t dimensions, Wide (&sums)[Rows][kVectors]) {
  for (auto& line : sums)
    for (Wide& sum : line) sum = all(0);
  for (std::size_t c = 0; c < dimensions; ++c) {
    Wide line[kVectors];
    for (std::size_t v = 0; v < kVectors; ++v) line[v] = load(matrix + c * stride + v * kWide);
    for (std::size_t r = 0; r < Rows; ++r) {
      const Wide x = all(rows[r * row_stride + c]);
      for (std::size_t v = 0; v < kVectors; ++v) sums[r][v] = fused(x, line[v], sums[r][v]);
    }
  }
}

template <std::size_t Rows>
inline void logits_of(const SoftmaxBlock& block, std::size_t row, std::size_t key, float* out, std::size_t stride) {
  Wide sums[Rows][kVectors];
  products<Rows>(block.queries + row * block.query_stride, block.query_stride, block.keys + key, block.key_stride,
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

template <std::size_t Rows>
inline void add_norms(const float* rows, std::size_t row_stride, const float* weights, std::size_t weight_stride,
                      std::size_t dimensions, double* l1, double* l2) {
  Wide sums[Rows][kVectors];
  products<Rows>(rows, row_stride, weights, weight_stride, dimensions, sums);
  for (std::size_t r = 0; r < Rows; ++r) {
    for (std::size_t v = 0; v < kVectors; ++v) {
      l1[r] += static_cast<double>(sum_of(magnitude(sums[r][v])));
      l2[r] += static_cast<double>(sum_of(sums[r][v] * sums[r][v]));
    }
  }
}

void projected_sums(const float* rows, std::size_t row_stride, std::size_t count, const float* weights,
                    std::size_t weight_stride, std::size_t dimensions, std::size_t columns, double* l1, double* l2) {
  std::size_t column = 0;
  for (; column + kColumns <= columns; column += kColumns) {
    std::size_t r = 0;
    for (; r + kRows <= count; r += kRows)
      add_norms<kRows>(rows + r * row_stride, row_stride, weights + column, weight_stride, dimensions, l1 + r, l2 + r);
    for (; r < count; ++r)
      add_norms<1>(rows + r * row_stride, row_stride, weights + column, weight_stride, dimensions, l1 + r, l2 + r);
  }
  for (; column < columns; ++column) {
    for (std::size_t r = 0; r < count; ++r) {
      float product = 0;
      for (std::size_t c = 0; c < dimensions; ++c)
        product = __builtin_fmaf(rows[r * row_stride + c], weights[c * weight_stride + column], product);
      l1[r] += static_cast<double>(__builtin_fabsf(product));
      l2[r] += static_cast<double>(product) * static_cast<double>(product);
    }
  }
}

}  // namespace

extern const Loops DEPTHKV_LOOPS;
const Loops DEPTHKV_LOOPS{softmax_block, add_weighted_rows, projected_sums};

}  // namespace depthkv
