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

// Rows and dimensions that are walked along a ranking at once.
constexpr std::size_t kWalkRows = 8;
constexpr std::size_t kWalkWidth = 32;

// A stretch of a ranking's walk for kWalkRows rows and kWalkWidth dimensions: entry after entry joins the sum of
// weighted values.
struct LossWalk {
  const float* values = nullptr;   // [keys][kWalkWidth], in the order of the walk
  const float* weights = nullptr;  // [keys][kWalkRows]
  const float* inverse = nullptr;  // [keys][kWalkRows]: one over the sum of the weights before the key, or 0
  std::size_t keys = 0;
  const float* full = nullptr;  // [kWalkRows][kWalkWidth]: the sum over all keys of the walk
  float* sums = nullptr;        // [kWalkRows][kWalkWidth]: over the keys before the stretch, then with the stretch's
};

// Rows of attention in the order of a walk.
struct WalkWeights {
  const float* attention = nullptr;      // [T][kWalkRows]
  const std::uint32_t* order = nullptr;  // [keys]
  std::size_t keys = 0;
  const double* mass = nullptr;  // [kWalkRows]: the sum of the weights before the first key
  float* weights = nullptr;      // [keys][kWalkRows]
  float* inverse = nullptr;  // [keys][kWalkRows]: one over the sum, in double, of the weights before the key; 0 where
                             // that is at most kNoMass
};

// Values weighted by rows of attention, at chosen keys only.
struct ChosenSums {
  const float* attention = nullptr;  // [T][kWalkRows]
  const float* values = nullptr;     // [T][value_stride >= kWalkWidth]
  std::size_t value_stride = 0;
  const std::uint32_t* chosen = nullptr;  // [keys]
  std::size_t keys = 0;
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
  void (*order_weights)(const WalkWeights& walk);
  // The stretch's values, weighted, join the sums; `inverse` and `full` aren't read.
  void (*weighted_sums)(const LossWalk& walk);
  // The same, and losses [keys][kWalkWidth] += squared differences of sum * inverse and full before each key, rows in
  // order; they = those if `first`.
  void (*walk_losses)(const LossWalk& walk, bool first, float* losses);
  // errors [keys] += the sums of losses [keys][kWalkWidth] over dimensions, in double.
  void (*add_losses)(const float* losses, std::size_t keys, double* errors);
  // sums [kWalkRows][kWalkWidth] += weighted values of the chosen keys, in order.
  void (*chosen_sums)(const ChosenSums& in, float* sums);
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
