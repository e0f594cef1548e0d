// SPDX-License-Identifier: Apache-2.0
// One walk along the ranking keeps the running sum of a v and prices every kept count, a few rows and dimensions at a
// time, so that the sums stay in registers, and a stretch of the ranking at a time, so that its values and losses stay
// in the first-level cache for a whole block of rows. Values are gathered into the walk's order once per call,
// attention once per block. The walk starts with what can't be pruned.
#include <algorithm>
#include <array>
#include <vector>

#include "kernels/accumulate_losses/accumulate_losses.h"
#include "kernels/column_sums/column_sums.h"
#include "kernels/loops/loops.h"
#include "kernels/walk.h"

namespace depthkv::cpu {
namespace {

constexpr std::size_t kStretch = 128;  // keys

class Walk {
 public:
  Walk(const LossInput& input, std::span<const std::uint32_t> ranking, LossCurves& curves)
      : curves_(curves),
        keys_(static_cast<std::size_t>(input.attention.columns)),
        priced_(keys_ - ranking.size()),
        strips_((static_cast<std::size_t>(input.values.columns) + kWalkWidth - 1) / kWalkWidth),
        values_(strips_ * keys_ * kWalkWidth),
        attention_(keys_ * kWalkRows),
        weights_(keys_ * kBlockRows),
        inverse_(keys_ * kBlockRows),
        full_(strips_ * kOctets * kSums),
        sums_(full_.size()) {
    order_.reserve(keys_);
    for (auto j = static_cast<std::uint32_t>(ranking.size()); j < keys_; ++j) order_.push_back(j);
    order_.insert(order_.end(), ranking.begin(), ranking.end());
    gather_values(input.values);
  }

  // Up to kBlockRows rows.
  void add(std::span<const float* const> rows) {
    octets_ = (rows.size() + kWalkRows - 1) / kWalkRows;
    for (std::size_t octet = 0; octet < octets_; ++octet)
      order_attention(rows.subspan(octet * kWalkRows, std::min(kWalkRows, rows.size() - octet * kWalkRows)), octet);
    add_up(0, keys_, full_);
    for (const float o : full_) curves_.energy += static_cast<double>(o) * static_cast<double>(o);
    add_up(0, priced_, sums_);
    for (std::size_t first = priced_; first < keys_; first += kStretch) price(first, std::min(kStretch, keys_ - first));
    curves_.rows += static_cast<std::int64_t>(rows.size());
  }

  void add_mass(const View& attention) const {
    std::vector<double> received(keys_);
    for (std::int64_t h = 0; h < attention.heads; ++h) add_rows(attention.head_range(h, 1), received);
    double mass = 0;
    for (std::size_t i = 0; i < priced_; ++i) mass += received[order_[i]];
    for (std::size_t i = priced_; i < keys_; ++i) {
      curves_.mass[i - priced_] += mass;
      mass += received[order_[i]];
    }
    curves_.mass[keys_ - priced_] += static_cast<double>(attention.heads * attention.rows);
  }

 private:
  static constexpr std::size_t kSums = kWalkRows * kWalkWidth;

  // Dimensions in strips, zeros beyond the last.
  void gather_values(const View& values) {
    const auto d = static_cast<std::size_t>(values.columns);
    for (std::size_t strip = 0; strip < strips_; ++strip) {
      const std::size_t begin = strip * kWalkWidth;
      const std::size_t count = std::min(kWalkWidth, d - begin);
      float* to = values_.data() + strip * keys_ * kWalkWidth;
      for (const std::uint32_t j : order_) {
        const auto row = values.row(0, j).subspan(begin, count);
        std::fill(std::copy(row.begin(), row.end(), to), to + kWalkWidth, 0.0F);
        to += kWalkWidth;
      }
    }
  }

  void order_attention(std::span<const float* const> rows, std::size_t octet) {
    interleave_rows(rows, keys_, attention_.data());
    const std::size_t at = octet * keys_ * kWalkRows;
    loops().order_weights({attention_.data(), order_.data(), keys_, weights_.data() + at, inverse_.data() + at});
  }

  LossWalk stretch(std::size_t strip, std::size_t octet, std::size_t first, std::size_t count, float* sums) const {
    const std::size_t at = (octet * keys_ + first) * kWalkRows;
    return {.values = values_.data() + (strip * keys_ + first) * kWalkWidth,
            .weights = weights_.data() + at,
            .inverse = inverse_.data() + at,
            .keys = count,
            .full = full_.data() + (strip * kOctets + octet) * kSums,
            .sums = sums + (strip * kOctets + octet) * kSums};
  }

  // sums = those of keys [first, last) of the walk.
  void add_up(std::size_t first, std::size_t last, std::vector<float>& sums) const {
    std::fill(sums.begin(), sums.end(), 0.0F);
    for (; first < last; first += kStretch)
      for (std::size_t strip = 0; strip < strips_; ++strip)
        for (std::size_t octet = 0; octet < octets_; ++octet)
          loops().weighted_sums(stretch(strip, octet, first, std::min(kStretch, last - first), sums.data()));
  }

  void price(std::size_t first, std::size_t count) {
    losses_.fill(0.0F);
    for (std::size_t strip = 0; strip < strips_; ++strip)
      for (std::size_t octet = 0; octet < octets_; ++octet)
        loops().walk_losses(stretch(strip, octet, first, count, sums_.data()), losses_.data());
    for (std::size_t k = 0; k < count; ++k) {
      double error = 0;
      for (std::size_t lane = 0; lane < kWalkLanes; ++lane)
        error += static_cast<double>(losses_[k * kWalkLanes + lane]);
      curves_.error[first - priced_ + k] += error;
    }
  }

  LossCurves& curves_;
  std::size_t keys_;
  std::size_t priced_;
  std::size_t strips_;
  std::size_t octets_ = 0;            // of the block
  std::vector<std::uint32_t> order_;  // [keys] positions
  Scratch values_;                    // [strip][keys][kWalkWidth], in the walk's order
  Scratch attention_;                 // [T][kWalkRows], of one octet
  Scratch weights_;                   // [octet][keys][kWalkRows], in the walk's order
  Scratch inverse_;                   // [octet][keys][kWalkRows]
  std::vector<float> full_;           // [strip][octet][kWalkRows][kWalkWidth]
  std::vector<float> sums_;           // the same
  std::array<float, kStretch * kWalkLanes> losses_{};
};

void walk_ranking(const LossInput& input, std::span<const std::uint32_t> ranking, LossCurves& curves) {
  Walk walk(input, ranking, curves);
  for_row_blocks(input.attention, [&](std::span<const float* const> rows) { walk.add(rows); });
  walk.add_mass(input.attention);
}

}  // namespace

void accumulate_losses(const LossInput& input, std::span<LossCurves> curves) {
  for (std::size_t i = 0; i < curves.size(); ++i) walk_ranking(input, input.rankings[i], curves[i]);
}

}  // namespace depthkv::cpu
