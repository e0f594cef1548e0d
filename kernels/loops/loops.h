// SPDX-License-Identifier: Apache-2.0
// The loops that take most of the time of recording and replay, compiled once for the base instruction set and once for
// AVX-512 (kernels/CMakeLists.txt), and chosen when the program runs. Both give the same bits.
#pragma once
#include <cstddef>
#include <cstdint>

namespace depthkv {

// Keys are padded to a multiple of this.
constexpr std::size_t kKeyTile = 32;
// Rows whose running norms stay in the first-level cache.
constexpr std::size_t kNormRows = 48;
// Rows whose outer products are added up at once.
constexpr std::size_t kMomentRows = 64;

// Rows of attention that are worked on side by side, one a lane, and dimensions of values at once.
constexpr std::size_t kWalkRows = 16;
constexpr std::size_t kWalkWidth = 16;

// Entries in any order and what kWalkRows rows give them.
struct EntryWalk {
  const float* weights = nullptr;  // [T][weight_stride >= kWalkRows]
  std::size_t weight_stride = 0;
  const float* values = nullptr;  // [T][value_stride >= kWalkWidth]
  std::size_t value_stride = 0;
  const std::uint32_t* order = nullptr;  // [entries + following]
  std::size_t entries = 0;
  std::size_t following = 0;  // that the next walk starts with, to be fetched
};

// From sums to losses. A row's sum is s + b o, o over all entries, b = 0 or 1; q is b less the weight of what is kept.
struct LossWalk {
  const float* norms = nullptr;     // [entries][2][kWalkRows]: |s|^2 before each entry, even and odd dimensions apart
  const float* shares = nullptr;    // [entries][kWalkRows]: q before each entry
  const float* products = nullptr;  // [T][weight_stride]: values times o
  const float* from_all = nullptr;  // [kWalkRows]: b
  const float* energy = nullptr;    // [kWalkRows]: |o|^2
  float* product = nullptr;         // [kWalkRows]: s times o, before the first entry, then behind the last
};

// Causal softmax rows of one query head.
struct SoftmaxBlock {
  const float* queries = nullptr;  // [rows][dimensions]
  std::size_t query_stride = 0;
  std::size_t rows = 0;
  std::size_t dimensions = 0;
  const float* keys = nullptr;         // [tile][dimensions][kKeyTile], zeros beyond the last key
  const std::size_t* begin = nullptr;  // keys that each row sees: [begin, end), not empty
  const std::size_t* end = nullptr;
  float scale = 1;
  float softcap = 0;  // 0: none
  // Keys that are worked on, multiples of kKeyTile around all of [begin, end).
  std::size_t first = 0;
  std::size_t last = 0;
};

struct NormRows {
  const float* values = nullptr;  // [rows][stride >= columns]
  std::size_t stride = 0;
  std::size_t rows = 0;
  std::size_t columns = 0;
};

struct Loops {
  // out [rows][stride >= last]: products of rows and keys from first to last, times `scale`; which keys a row sees
  // isn't asked.
  void (*scaled_products)(const SoftmaxBlock& block, float* out, std::size_t stride);
  // out [rows][stride >= last]: exp(logit - the row's largest) from first to last, 0 where a row doesn't see; inverse
  // [rows]: 1 / the row's sum.
  void (*softmax_block)(const SoftmaxBlock& block, float* out, std::size_t stride, float* inverse);
  // sums[j] += sum over rows of weights[row] * values[row][j], for j in [first, last), multiples of kKeyTile; a call's
  // rows are added up in float.
  void (*add_weighted_rows)(const float* values, std::size_t stride, const float* weights, std::size_t rows,
                            std::size_t first, std::size_t last, double* sums);
  // l1 [rows], l2 [rows]: norms of rows [rows <= kNormRows][dimensions] times weights [dimensions][columns], with any
  // strides. Sums of sixteen columns apart, then of these, in float.
  void (*projected_norms)(const float* rows, std::size_t row_stride, std::size_t count, const float* weights,
                          std::size_t weight_stride, std::size_t dimensions, std::size_t columns, float* l1, float* l2);
  // products [width][width] += the sum of x x^T over rows x [kMomentRows][width], in float, from the diagonal on; what
  // lies before it may be anything.
  void (*add_products)(const float* rows, std::size_t width, double* products);
  // sums [kWalkWidth][kWalkRows] += weighted values, entry after entry.
  void (*weighted_sums)(const EntryWalk& walk, float* sums);
  // products [entries][stride >= kWalkRows] of values [entries][value_stride] and sums, dimension after dimension;
  // added to what is there unless `first`.
  void (*row_products)(const float* values, std::size_t value_stride, std::size_t entries, const float* sums,
                       bool first, float* products, std::size_t stride);
  // weighted_sums(), and norms [entries][kWalkRows] += squares of the sums before each entry, dimension after
  // dimension; they = those if `first`.
  void (*walk_norms)(const EntryWalk& walk, bool first, float* sums, float* norms);
  // shares [entries][kWalkRows] = from_all - mass before each entry, whose weight then joins mass [kWalkRows]. Of
  // `walk`, values aren't read.
  void (*walk_masses)(const EntryWalk& walk, const float* from_all, double* mass, float* shares);
  // losses [entries][kWalkRows] += |o_S - o|^2 with o_S = (s + b o) / (b - q), or 0 where that is at most
  // kNoMass; they = those if
  // `first`. Of `walk`, values aren't read.
  void (*walk_losses)(const EntryWalk& walk, const LossWalk& from, bool first, float* losses);
  // products [kWalkRows]: those of sums [dimensions][kWalkRows], a multiple of kWalkWidth of them, added up.
  void (*sum_products)(const float* one, const float* other, std::size_t dimensions, float* products);
  // errors [entries] += the sums of losses [entries][kWalkRows] over rows, in double.
  void (*add_losses)(const float* losses, std::size_t entries, double* errors);
  // The sum of what `mask`, all ones or zeros, leaves of a row, in double, eight columns apart.
  double (*masked_sum)(const float* row, const std::uint32_t* mask, std::size_t columns);
  // norms [rows]: L1, or L2 if `squared`. Sums in double, of eight columns apart.
  void (*row_norms)(const NormRows& in, bool squared, float* norms);
};

const Loops& base_loops();
// Null where the program wasn't built for x86-64 or the processor lacks AVX-512.
const Loops* avx512_loops();
// The fastest that this processor runs.
const Loops& loops();

}  // namespace depthkv
