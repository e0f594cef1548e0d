// SPDX-License-Identifier: Apache-2.0
// One walk along the ranking keeps the running sum of a v and prices every kept count, a few rows and dimensions at a
// time, so that the sums stay in registers, and a stretch of the ranking at a time, so that its values and losses stay
// in the first-level cache for a whole block of rows. Values are gathered into the walk's order once per ranking,
// attention once per ranking and block. What no ranking changes is made once for all of them: rows side by side, the
// sums over all keys, and over those that can't be pruned, where every walk starts.
#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <utility>
#include <vector>

#include "kernels/accumulate_losses/accumulate_losses.h"
#include "kernels/column_sums/column_sums.h"
#include "kernels/loops/loops.h"
#include "kernels/walk.h"

namespace depthkv::cpu {
namespace {

constexpr std::size_t kStretch = 128;  // keys
constexpr std::size_t kSums = kWalkRows * kWalkWidth;

// Calls visit(first, count) for stretches of the keys [0, keys).
template <class Visit>
void for_stretches(std::size_t keys, Visit visit) {
  for (std::size_t first = 0; first < keys; first += kStretch) visit(first, std::min(kStretch, keys - first));
}

// Up to kBlockRows rows. Sums are [strip][octet][kWalkRows][kWalkWidth].
struct Block {
  std::size_t octets = 0;
  Scratch attention;         // [octet][T][kWalkRows]
  std::vector<double> mass;  // [octet][kWalkRows], of keys that can't be pruned
  std::vector<float> sums;   // over these
  std::vector<float> full;   // over all keys
};

// One KV head under any ranking.
class Head {
 public:
  explicit Head(const LossInput& input)
      : keys_(static_cast<std::size_t>(input.attention.columns)),
        open_(input.rankings[0].size()),
        strips_((static_cast<std::size_t>(input.values.columns) + kWalkWidth - 1) / kWalkWidth),
        values_(strips_ * keys_ * kWalkWidth),
        received_(keys_) {
    copy_values(input.values);
    for_row_blocks(input.attention, [&](std::span<const float* const> rows) { add(rows); });
    for (std::int64_t h = 0; h < input.attention.heads; ++h) add_rows(input.attention.head_range(h, 1), received_);
  }

  std::size_t keys() const { return keys_; }
  std::size_t open() const { return open_; }
  std::size_t strips() const { return strips_; }
  const float* values(std::size_t strip, std::size_t key) const {
    return values_.data() + (strip * keys_ + key) * kWalkWidth;
  }
  const std::vector<Block>& blocks() const { return blocks_; }

  // And energy and rows, which are the same under any.
  void add_mass(std::span<const std::uint32_t> ranking, LossCurves& curves) const {
    double mass = std::accumulate(received_.begin() + static_cast<std::ptrdiff_t>(open_), received_.end(), 0.0);
    for (std::size_t k = 0; k < open_; ++k) {
      curves.mass[k] += mass;
      mass += received_[ranking[k]];
    }
    curves.mass[open_] += static_cast<double>(rows_);
    curves.energy += energy_;
    curves.rows += rows_;
  }

 private:
  // Dimensions in strips, zeros beyond the last.
  void copy_values(const View& values) {
    const auto d = static_cast<std::size_t>(values.columns);
    float* to = values_.data();
    for (std::size_t begin = 0; begin < d; begin += kWalkWidth) {
      for (std::size_t j = 0; j < keys_; ++j, to += kWalkWidth) {
        const auto row = values.row(0, static_cast<std::int64_t>(j)).subspan(begin, std::min(kWalkWidth, d - begin));
        std::fill(std::copy(row.begin(), row.end(), to), to + kWalkWidth, 0.0F);
      }
    }
  }

  void add(std::span<const float* const> rows) {
    Block block;
    block.octets = (rows.size() + kWalkRows - 1) / kWalkRows;
    block.attention.resize(block.octets * keys_ * kWalkRows);
    block.mass.resize(block.octets * kWalkRows);
    for (std::size_t octet = 0; octet < block.octets; ++octet) {
      const std::size_t first = octet * kWalkRows;
      interleave_rows(rows.subspan(first, std::min(kWalkRows, rows.size() - first)), keys_,
                      block.attention.data() + first * keys_);
    }
    for (std::size_t r = 0; r < rows.size(); ++r)
      block.mass[r] = std::accumulate(rows[r] + open_, rows[r] + keys_, 0.0);
    block.sums.resize(strips_ * block.octets * kSums);
    add_up(block, open_, keys_, block.sums);
    block.full = block.sums;
    add_up(block, 0, open_, block.full);
    for (const float o : block.full) energy_ += static_cast<double>(o) * static_cast<double>(o);
    rows_ += static_cast<std::int64_t>(rows.size());
    blocks_.push_back(std::move(block));
  }

  // The keys [begin, end) join the sums.
  void add_up(const Block& block, std::size_t begin, std::size_t end, std::vector<float>& sums) const {
    for_stretches(end - begin, [&](std::size_t first, std::size_t count) {
      for (std::size_t strip = 0; strip < strips_; ++strip)
        for (std::size_t octet = 0; octet < block.octets; ++octet)
          loops().weighted_sums({.values = values(strip, begin + first),
                                 .weights = block.attention.data() + (octet * keys_ + begin + first) * kWalkRows,
                                 .keys = count,
                                 .sums = sums.data() + (strip * block.octets + octet) * kSums});
    });
  }

  std::size_t keys_;
  std::size_t open_;  // the first keys, which can be pruned
  std::size_t strips_;
  Scratch values_;                // [strip][T][kWalkWidth]
  std::vector<double> received_;  // [T], by all rows
  std::vector<Block> blocks_;
  double energy_ = 0;
  std::int64_t rows_ = 0;
};

// Along one ranking after another.
class Walk {
 public:
  explicit Walk(const Head& head)
      : head_(head),
        values_(head.strips() * head.open() * kWalkWidth),
        weights_(head.open() * kBlockRows),
        inverse_(weights_.size()) {}

  // Adds to errors [kept].
  void price(std::span<const std::uint32_t> ranking, std::span<double> errors) {
    float* to = values_.data();
    for (std::size_t strip = 0; strip < head_.strips(); ++strip)
      for (const std::uint32_t j : ranking)
        std::memcpy(std::exchange(to, to + kWalkWidth), head_.values(strip, j), kWalkWidth * sizeof(float));
    for (const Block& block : head_.blocks()) {
      order(block, ranking);
      sums_ = block.sums;
      for_stretches(ranking.size(), [&](std::size_t first, std::size_t count) {
        price(block, first, count);
        loops().add_losses(losses_.data(), count, errors.data() + first);
      });
    }
  }

 private:
  void order(const Block& block, std::span<const std::uint32_t> ranking) {
    for (std::size_t octet = 0; octet < block.octets; ++octet) {
      const std::size_t at = octet * head_.open() * kWalkRows;
      loops().order_weights({.attention = block.attention.data() + octet * head_.keys() * kWalkRows,
                             .order = ranking.data(),
                             .keys = ranking.size(),
                             .mass = block.mass.data() + octet * kWalkRows,
                             .weights = weights_.data() + at,
                             .inverse = inverse_.data() + at});
    }
  }

  void price(const Block& block, std::size_t first, std::size_t count) {
    for (std::size_t strip = 0; strip < head_.strips(); ++strip) {
      for (std::size_t octet = 0; octet < block.octets; ++octet) {
        const std::size_t at = (octet * head_.open() + first) * kWalkRows;
        const std::size_t sum = (strip * block.octets + octet) * kSums;
        loops().walk_losses({.values = values_.data() + (strip * head_.open() + first) * kWalkWidth,
                             .weights = weights_.data() + at,
                             .inverse = inverse_.data() + at,
                             .keys = count,
                             .full = block.full.data() + sum,
                             .sums = sums_.data() + sum},
                            strip + octet == 0, losses_.data());
      }
    }
  }

  const Head& head_;
  Scratch values_;           // [strip][ranking][kWalkWidth]
  Scratch weights_;          // [octet][ranking][kWalkRows]
  Scratch inverse_;          // the same
  std::vector<float> sums_;  // before the stretch
  std::array<float, kStretch * kWalkWidth> losses_{};
};

}  // namespace

void accumulate_losses(const LossInput& input, std::span<LossCurves> curves) {
  if (curves.empty()) return;
  const Head head(input);
  Walk walk(head);
  for (std::size_t i = 0; i < curves.size(); ++i) {
    walk.price(input.rankings[i], curves[i].error);
    head.add_mass(input.rankings[i], curves[i]);
  }
}

}  // namespace depthkv::cpu
