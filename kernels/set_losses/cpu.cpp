// SPDX-License-Identifier: Apache-2.0
// Sums over kept and over dropped entries, in float: a stretch of entries at a time meets a block of rows, a few of
// them and a few dimensions at once.
#include <algorithm>
#include <vector>

#include "kernels/loops/loops.h"
#include "kernels/set_losses/set_losses.h"
#include "kernels/walk.h"

namespace depthkv::cpu {
namespace {

constexpr std::size_t kStretch = 256;  // entries
constexpr std::size_t kSums = kWalkRows * kWalkWidth;

class Outputs {
 public:
  explicit Outputs(const SetInput& input)
      : values_(input.values),
        keys_(static_cast<std::size_t>(input.attention.columns)),
        whole_(static_cast<std::size_t>(values_.columns) / kWalkWidth),
        strips_((static_cast<std::size_t>(values_.columns) + kWalkWidth - 1) / kWalkWidth),
        mask_(keys_, ~0U),
        attention_(keys_ * kBlockRows) {
    std::fill_n(mask_.begin(), input.tokens, 0U);
    for (const std::uint32_t j : input.kept) mask_[j] = ~0U;
    for (std::uint32_t j = 0; j < keys_; ++j) (mask_[j] != 0 ? kept_ : dropped_).push_back(j);
    if (whole_ < strips_) pad_values();
  }

  void add(std::span<const float* const> rows, SetLosses& losses) {
    const std::size_t octets = (rows.size() + kWalkRows - 1) / kWalkRows;
    for (std::size_t octet = 0; octet < octets; ++octet) {
      const std::size_t first = octet * kWalkRows;
      interleave_rows(rows.subspan(first, std::min(kWalkRows, rows.size() - first)), keys_,
                      attention_.data() + first * keys_);
    }
    add_up(kept_, octets, stays_);
    add_up(dropped_, octets, goes_);
    for (std::size_t r = 0; r < rows.size(); ++r) add_row(loops().masked_sum(rows[r], mask_.data(), keys_), r, losses);
  }

 private:
  void pad_values() {
    const auto rest = static_cast<std::size_t>(values_.columns) % kWalkWidth;
    padded_.resize(keys_ * kWalkWidth);
    for (std::size_t j = 0; j < keys_; ++j)
      std::ranges::copy(values_.row(0, static_cast<std::int64_t>(j)).last(rest), padded_.data() + j * kWalkWidth);
  }

  void add_up(std::span<const std::uint32_t> chosen, std::size_t octets, std::vector<float>& sums) const {
    sums.assign(kOctets * strips_ * kSums, 0.0F);
    for (std::size_t first = 0; first < chosen.size(); first += kStretch) {
      const auto stretch = chosen.subspan(first, std::min(kStretch, chosen.size() - first));
      for (std::size_t strip = 0; strip < strips_; ++strip) {
        const bool whole = strip < whole_;
        for (std::size_t octet = 0; octet < octets; ++octet) {
          loops().chosen_sums({.attention = attention_.data() + octet * kWalkRows * keys_,
                               .values = whole ? values_.data + strip * kWalkWidth : padded_.data(),
                               .value_stride = whole ? static_cast<std::size_t>(values_.row_stride) : kWalkWidth,
                               .chosen = stretch.data(),
                               .keys = stretch.size()},
                              sums.data() + (octet * strips_ + strip) * kSums);
        }
      }
    }
  }

  void add_row(double mass, std::size_t row, SetLosses& losses) const {
    const double inverse = mass > kNoMass ? 1.0 / mass : 0.0;
    const std::size_t octet = row / kWalkRows;
    ++losses.rows;
    losses.mass += dropped_.empty() ? 1.0 : mass;
    for (std::size_t strip = 0; strip < strips_; ++strip) {
      const std::size_t at = (octet * strips_ + strip) * kSums + row % kWalkRows * kWalkWidth;
      for (std::size_t c = at; c < at + kWalkWidth; ++c) {
        const double full = static_cast<double>(stays_[c]) + static_cast<double>(goes_[c]);
        const double error = static_cast<double>(stays_[c]) * inverse - full;
        losses.energy += full * full;
        losses.error += dropped_.empty() ? 0.0 : error * error;
      }
    }
  }

  View values_;
  std::size_t keys_;
  std::size_t whole_;                // strips of kWalkWidth dimensions
  std::size_t strips_;               // with one that the last dimensions don't fill
  std::vector<std::uint32_t> mask_;  // of what stays
  std::vector<std::uint32_t> kept_;
  std::vector<std::uint32_t> dropped_;
  std::vector<float> padded_;  // [T][kWalkWidth]: the last dimensions, then zeros
  Scratch attention_;          // [octet][T][kWalkRows]
  std::vector<float> stays_;   // [octet][strip][kWalkRows][kWalkWidth]
  std::vector<float> goes_;    // the same
};

}  // namespace

SetLosses set_losses(const SetInput& input) {
  Outputs outputs(input);
  SetLosses losses;
  for_row_blocks(input.attention, [&](std::span<const float* const> rows) { outputs.add(rows, losses); });
  return losses;
}

}  // namespace depthkv::cpu
