// SPDX-License-Identifier: Apache-2.0
// The kernels that scorers and the replay may call; one table per back end. Contracts: kernels/<op>/<op>.h.
#pragma once
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "depthkv/curve.h"
#include "depthkv/tensor.h"

namespace depthkv {

struct SoftmaxSpec {
  double scale = 1;
  double softcap = 0;       // 0: none
  std::int64_t window = 0;  // keys that a row sees, its own included; 0: all up to its own
};

struct ModelCard;
// Of a layer of a model.
SoftmaxSpec softmax_of(const ModelCard& model, int layer);

// Falling lists of finite numbers that compete for entries.
struct PooledLists {
  std::span<const float> scores{};         // list after list
  std::span<const std::int64_t> begins{};  // [U + 1]
  std::span<const std::int64_t> costs{};   // [U], >= 1: entries that an item stands for
  std::span<const double> factors{};       // [U], >= 0, of scores below `unscaled`; or none
  float unscaled = std::numeric_limits<float>::infinity();
  std::int64_t most = std::numeric_limits<std::int64_t>::max();  // items of a list that count
};

// The least and the most of each dimension in each page of keys, [Hkv, pages, d].
struct PageBounds {
  Tensor least;
  Tensor most;
};

// Numbers that share a scale: `size` neighbours in one channel, or in one token.
struct QuantiseSpec {
  enum class Along { tokens, channels };
  int bits = 2;
  Along along = Along::tokens;
  std::int64_t size = 32;
};

// For each dropped entry of a KV head the kept one whose key points the same way most.
struct Nearest {
  std::vector<std::uint32_t> kept;  // index into the kept positions
  std::vector<float> similarity;    // cosine of the two keys
};

// Dropped entries that go into kept ones.
struct MergeInput {
  View rows;                               // [1, T, d]: a KV head's keys, or its values
  std::span<const std::uint32_t> kept;     // [K], positions
  std::span<const std::uint32_t> dropped;  // [D], positions
  std::span<const std::uint32_t> into;     // [D], indices into kept
  std::span<const float> weights;          // [D]; 0: is dropped after all
  std::span<const float> shares;           // [D]: what each adds to the divisor
};

// Rows of logits that are changed where they lie, [H, R, width] without gaps.
struct Logits {
  float* data = nullptr;
  std::int64_t heads = 0;
  std::int64_t rows = 0;
  std::int64_t width = 0;

  std::span<float> row(std::int64_t head, std::int64_t row) const {
    return {data + (head * rows + row) * width, static_cast<std::size_t>(width)};
  }
  Logits head_range(std::int64_t first, std::int64_t count) const {
    return {data + first * rows * width, count, rows, width};
  }
};

// Sets of columns, [Hkv, sets, words]: column j is bit j % 32 of word j / 32.
struct ColumnSets {
  const std::uint32_t* bits = nullptr;
  std::int64_t heads = 0;
  std::int64_t sets = 0;
  std::int64_t words = 0;

  std::size_t head_words() const { return static_cast<std::size_t>(sets * words); }
  std::span<const std::uint32_t> set(std::int64_t head, std::int64_t set) const {
    return {bits + (head * sets + set) * words, static_cast<std::size_t>(words)};
  }
  ColumnSets head_range(std::int64_t first, std::int64_t count) const {
    return {bits + first * sets * words, count, sets, words};
  }
};

struct Ops {
  std::string_view name;
  // accumulate_losses is fastest with all rankings of a KV head in one call, however many threads there are.
  bool rankings_together = false;
  // Causal softmax rows. queries [H, R, d], keys [Hkv, T, d], positions [R]; returns [H, R, T], 0 where key > position.
  Tensor (*attention_rows)(const View& queries, const View& keys, std::span<const std::int32_t> positions, SoftmaxSpec);
  // Softmax rows at positions first, first + 1, ... summed per key: queries [H, R, d], keys [T, Hkv, d]; adds to sums
  // [H][T].
  void (*attention_sums)(const View& queries, const HalfRows& keys, std::int64_t first, SoftmaxSpec,
                         std::span<double> sums);
  // The most of each key's softmax times the row's weight: weights [W][R]; raises maxima [W][H][T].
  void (*attention_maxima)(const View& queries, const HalfRows& keys, std::int64_t first, SoftmaxSpec,
                           std::span<const float> weights, std::span<float> maxima);
  // rows [H, R, n] summed over R in double; returns [H, 1, n].
  Tensor (*column_sums)(const View& rows);
  // rows [H, n, d]; returns [H, 1, n].
  Tensor (*row_norms)(const View& rows, Norm);
  // rows [Hkv, R, d] times each query head's weights [H, d, D]; returns [H, R, 2]: L1 and L2 norm of every product.
  Tensor (*projected_norms)(const View& rows, const View& weights);
  // scores [Hkv, 1, n], larger = keep; protected positions first. Ties go to the lower position; NaN throws Error.
  Ranking (*rank)(const View& scores, Protect);
  // Adds the losses of one KV head at every kept count to `curves`, one for each ranking.
  void (*accumulate_losses)(const LossInput&, std::span<LossCurves> curves);
  // The losses of one KV head when one set of entries is kept.
  SetLosses (*set_losses)(const SetInput&);
  // The share of marked positions ([n], not 0) that are lost at every kept count; returns [Hkv, 1, n + 1], or nothing
  // where nothing is marked.
  Tensor (*evidence_curves)(const Ranking& ranking, std::span<const std::uint8_t> marked);
  // How many of the best entries of all lists together belong to each list.
  std::vector<std::int64_t> (*pooled_best)(const PooledLists& lists, std::int64_t entries);
  // keys [Hkv, T, d] in pages of `size` tokens.
  PageBounds (*page_bounds)(const View& keys, std::int64_t size);
  // No key of a page has a larger product with the query: queries [H, R, d]; returns [H, R, pages].
  Tensor (*page_scores)(const View& queries, const PageBounds& bounds);
  // rows [H, n, d] as they come back from b bits.
  Tensor (*quantise)(const View& rows, QuantiseSpec);
  // keys [1, T, d]; positions, of kept ones in rising order.
  Nearest (*nearest_kept)(const View& keys, std::span<const std::uint32_t> kept,
                          std::span<const std::uint32_t> dropped);
  // The kept rows with the dropped ones merged into them, [1, K, d].
  Tensor (*merge_rows)(const MergeInput&);
  // Columns of each row become -inf: those of the row's set.
  void (*hide_entries)(const Logits&, const ColumnSets& hidden, std::span<const std::uint32_t> row_sets);
};

// cpu gives the same bits everywhere; reference is slow and in double; cuda ranks as cpu does, bit for bit.
enum class Device { cpu, reference, cuda };
std::string_view to_string(Device device);
// Throws InputError for cuda where this build or this machine has none.
const Ops& ops_for(Device device);
// cuda where this build and this machine have it, else cpu.
Device fastest_device();
// What there is for Device::cuda, in a sentence: names of devices, or why there are none.
std::string cuda_summary();

}  // namespace depthkv
