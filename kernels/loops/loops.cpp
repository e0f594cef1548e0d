// SPDX-License-Identifier: Apache-2.0
// Compiled once per instruction set, as DEPTHKV_LOOPS; calls nothing that another source might share.
#include "kernels/loops/loops.h"

#include "kernels/loops/walks.h"
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

// Left factors of products, [rows][dimensions] in any layout.
struct Left {
  const float* values;
  std::size_t row_stride;
  std::size_t stride;  // of dimensions
};

// Rows times as many columns of a matrix [dimensions][stride] as there are sums.
template <std::size_t Rows, std::size_t Vectors>
inline void products(const Left& left, const float* matrix, std::size_t stride, std::size_t dimensions,
                     Wide (&sums)[Rows][Vectors]) {
  for (auto& line : sums)
    for (Wide& sum : line) sum = all(0);
  for (std::size_t c = 0; c < dimensions; ++c) {
    Wide line[Vectors];
    for (std::size_t v = 0; v < Vectors; ++v) line[v] = load(matrix + c * stride + v * kWide);
    for (std::size_t r = 0; r < Rows; ++r) {
      const Wide x = all(left.values[r * left.row_stride + c * left.stride]);
      for (std::size_t v = 0; v < Vectors; ++v) sums[r][v] = fused(x, line[v], sums[r][v]);
    }
  }
}

template <std::size_t Rows>
[[gnu::always_inline]] inline void logits_of(const SoftmaxBlock& block, std::size_t row, std::size_t key, float* out,
                                             std::size_t stride) {
  Wide sums[Rows][kVectors];
  const float* tile = block.keys + key / kKeyTile * kKeyTile * block.dimensions + key % kKeyTile;
  products({block.queries + row * block.query_stride, block.query_stride, 1}, tile, kKeyTile, block.dimensions, sums);
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

void scaled_products(const SoftmaxBlock& block, float* out, std::size_t stride) {
  for (std::size_t key = block.first; key < block.last; key += kColumns) {
    std::size_t row = 0;
    for (; row + kRows <= block.rows; row += kRows) logits_of<kRows>(block, row, key, out, stride);
    for (; row < block.rows; ++row) logits_of<1>(block, row, key, out, stride);
  }
}

void softmax_block(const SoftmaxBlock& block, float* out, std::size_t stride, float* inverse) {
  scaled_products(block, out, stride);
  for (std::size_t row = 0; row < block.rows; ++row) softmax_row(block, row, out + row * stride, inverse[row]);
}

void add_weighted_rows(const float* values, std::size_t stride, const float* weights, std::size_t rows,
                       std::size_t first, std::size_t last, double* sums) {
  for (std::size_t j = first; j < last; j += kWide) {
    Wide sum = all(0);
    for (std::size_t r = 0; r < rows; ++r) sum = fused(load(values + r * stride + j), all(weights[r]), sum);
    add_to(sums + j, sum);
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
  products({rows, row_stride, 1}, weights, weight_stride, dimensions, sums);
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
inline void add_lines(const float* rows, std::size_t width, std::size_t line, std::size_t column, double* sums) {
  Wide block[Rows][Vectors];
  products<Rows, Vectors>({rows + line, 1, width}, rows + column, width, kMomentRows, block);
  for (std::size_t r = 0; r < Rows; ++r)
    for (std::size_t v = 0; v < Vectors; ++v) add_to(sums + (line + r) * width + column + v * kWide, block[r][v]);
}

template <std::size_t Rows>
inline void add_lines(const float* rows, std::size_t width, std::size_t line, double* sums) {
  std::size_t column = line / kWide * kWide;
  for (; column + kColumns <= width; column += kColumns) add_lines<Rows, kVectors>(rows, width, line, column, sums);
  for (; column + kWide <= width; column += kWide) add_lines<Rows, 1>(rows, width, line, column, sums);
  for (; column < width; ++column) {
    for (std::size_t r = 0; r < Rows; ++r) {
      float sum = 0;
      for (std::size_t c = 0; c < kMomentRows; ++c)
        sum = __builtin_fmaf(rows[c * width + line + r], rows[c * width + column], sum);
      sums[(line + r) * width + column] += static_cast<double>(sum);
    }
  }
}

void add_products(const float* rows, std::size_t width, double* sums) {
  std::size_t line = 0;
  for (; line + kRows <= width; line += kRows) add_lines<kRows>(rows, width, line, sums);
  for (; line < width; ++line) add_lines<1>(rows, width, line, sums);
}

// Floats that are asked for before they are needed.
constexpr std::size_t kAhead = 1024;

template <std::size_t Rows, class Term>
inline void add_columns(const float* from, std::size_t stride, std::size_t columns, Term term, Eight (&sums)[Rows]) {
  for (Eight& sum : sums) sum = no_eight();
  std::size_t c = 0;
  for (; c + kEight <= columns; c += kEight) {
    for (std::size_t r = 0; r < Rows; ++r) {
      // The processor's own prefetching stops at the end of a page.
      __builtin_prefetch(from + r * stride + c + kAhead);
      sums[r] = add_terms(from + r * stride + c, sums[r], term);
    }
  }
  if (c == columns) return;
  for (std::size_t r = 0; r < Rows; ++r) {
    float rest[kEight] = {};
    for (std::size_t i = 0; c + i < columns; ++i) rest[i] = from[r * stride + c + i];
    sums[r] = add_terms(rest, sums[r], term);
  }
}

template <class Term, class Finish>
inline void norms_of(const NormRows& in, float* norms, Term term, Finish finish) {
  constexpr std::size_t kTogether = 4;
  std::size_t r = 0;
  for (; r + kTogether <= in.rows; r += kTogether) {
    Eight sums[kTogether];
    add_columns(in.values + r * in.stride, in.stride, in.columns, term, sums);
    const Four four = finish(sums_of(sums));
    for (std::size_t i = 0; i < kTogether; ++i) norms[r + i] = static_cast<float>(four[i]);
  }
  for (; r < in.rows; ++r) {
    Eight sums[1];
    add_columns(in.values + r * in.stride, in.stride, in.columns, term, sums);
    norms[r] = static_cast<float>(finish(Four{sum_of(sums[0]), 0, 0, 0})[0]);
  }
}

// Squares of floats are exact in double.
void row_norms(const NormRows& in, bool squared, float* norms) {
  if (squared)
    norms_of(
        in, norms, [](Doubles x) { return x * x; }, [](Four x) { return root_of(x); });
  else
    norms_of(
        in, norms, [](Doubles x) { return x < 0 ? -x : x; }, [](Four x) { return x; });
}

double masked_sum(const float* row, const std::uint32_t* mask, std::size_t columns) {
  typedef std::uint32_t Bits __attribute__((vector_size(kEight * sizeof(std::uint32_t))));
  Eight sums = no_eight();
  const auto add = [&](const float* values, const std::uint32_t* with) {
    Bits bits;
    Bits chosen;
    std::memcpy(&bits, values, sizeof bits);
    std::memcpy(&chosen, with, sizeof chosen);
    bits &= chosen;
    float left[kEight];
    std::memcpy(left, &bits, sizeof bits);
    sums = add_terms(left, sums, [](Doubles x) { return x; });
  };
  std::size_t c = 0;
  for (; c + kEight <= columns; c += kEight) add(row + c, mask + c);
  if (c < columns) {
    float values[kEight] = {};
    std::uint32_t with[kEight] = {};
    for (std::size_t i = 0; c + i < columns; ++i) values[i] = row[c + i], with[i] = mask[c + i];
    add(values, with);
  }
  return sum_of(sums);
}

}  // namespace

extern const Loops DEPTHKV_LOOPS;
const Loops DEPTHKV_LOOPS{.scaled_products = scaled_products,
                          .softmax_block = softmax_block,
                          .add_weighted_rows = add_weighted_rows,
                          .projected_norms = projected_norms,
                          .add_products = add_products,
                          .weighted_sums = weighted_sums,
                          .row_products = row_products,
                          .walk_norms = walk_norms,
                          .walk_masses = walk_masses,
                          .walk_losses = walk_losses,
                          .sum_products = sum_products,
                          .add_losses = add_losses,
                          .masked_sum = masked_sum,
                          .row_norms = row_norms};

}  // namespace depthkv
