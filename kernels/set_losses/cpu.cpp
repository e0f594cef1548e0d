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

class Outputs {
 public:
  explicit Outputs(const SetInput& input)
      : values_(input.values),
        entries_(static_cast<std::size_t>(input.attention.columns)),
        mask_(entries_, ~0U),
        attention_(entries_ * kWalkRows) {
    std::fill_n(mask_.begin(), input.tokens, 0U);
    for (const std::uint32_t j : input.kept) mask_[j] = ~0U;
    for (std::uint32_t j = 0; j < entries_; ++j) (mask_[j] != 0 ? kept_ : dropped_).push_back(j);
  }

  void add(std::span<const float* const> rows, SetLosses& losses) {
    interleave_rows(rows, entries_, attention_.data(), kWalkRows);
    add_up(kept_, stays_);
    add_up(dropped_, goes_);
    for (std::size_t r = 0; r < rows.size(); ++r)
      add_row(loops().masked_sum(rows[r], mask_.data(), entries_), r, losses);
  }

 private:
  void add_up(std::span<const std::uint32_t> chosen, Scratch& sums) const {
    sums.assign(values_.strips() * kSums, 0.0F);
    values_.add_up(attention_.data(), kWalkRows, chosen, sums.data());
  }

  void add_row(double mass, std::size_t row, SetLosses& losses) const {
    const double inverse = mass > kNoMass ? 1.0 / mass : 0.0;
    ++losses.rows;
    losses.mass += dropped_.empty() ? 1.0 : mass;
    for (std::size_t at = row; at < stays_.size(); at += kWalkRows) {
      const double full = static_cast<double>(stays_[at]) + static_cast<double>(goes_[at]);
      const double error = static_cast<double>(stays_[at]) * inverse - full;
      losses.energy += full * full;
      losses.error += dropped_.empty() ? 0.0 : error * error;
    }
  }

  PaddedValues values_;
  std::size_t entries_;
  std::vector<std::uint32_t> mask_;  // of what stays
  std::vector<std::uint32_t> kept_;
  std::vector<std::uint32_t> dropped_;
  Scratch attention_;  // [T][kWalkRows]
  Scratch stays_;      // [strip][kWalkWidth][kWalkRows]
  Scratch goes_;       // the same
};

}  // namespace

SetLosses set_losses(const SetInput& input) {
  Outputs outputs(input);
  SetLosses losses;
  for_row_groups(input.attention, [&](std::span<const float* const> rows) { outputs.add(rows, losses); });
  return losses;
}

}  // namespace depthkv::cpu
