// SPDX-License-Identifier: Apache-2.0
// Sums over kept and over dropped entries, in float: a stretch of entries at a time meets all rows, a few of them and a
// few dimensions at once, so that values and attention are read from memory once.
#include <algorithm>
#include <vector>

#include "kernels/loops/loops.h"
#include "kernels/set_losses/set_losses.h"

namespace depthkv::cpu {
namespace {

constexpr std::size_t kStretch = 256;  // entries

// [strip][row][kWalkWidth]
using Sums = std::vector<float>;

// A head's outputs from chosen entries only.
class Outputs {
 public:
  explicit Outputs(const View& values)
      : values_(values), whole_(static_cast<std::size_t>(values.columns) / kWalkWidth), strips_(whole_) {
    const auto rest = static_cast<std::size_t>(values.columns) % kWalkWidth;
    if (rest == 0) return;
    ++strips_;
    padded_.resize(static_cast<std::size_t>(values.rows) * kWalkWidth);
    for (std::int64_t j = 0; j < values.rows; ++j)
      std::ranges::copy(values.row(0, j).last(rest), padded_.begin() + j * static_cast<std::int64_t>(kWalkWidth));
  }

  std::size_t strips() const { return strips_; }

  // attention [1, R, T].
  void compute(const View& attention, std::span<const std::uint32_t> chosen, Sums& sums) const {
    const auto rows = static_cast<std::size_t>(attention.rows);
    sums.assign(strips_ * rows * kWalkWidth, 0.0F);
    for (std::size_t first = 0; first < chosen.size(); first += kStretch) {
      const auto stretch = chosen.subspan(first, std::min(kStretch, chosen.size() - first));
      for (std::size_t strip = 0; strip < strips_; ++strip) {
        const bool whole = strip < whole_;
        loops().chosen_sums({.attention = attention.data,
                             .row_stride = static_cast<std::size_t>(attention.row_stride),
                             .values = whole ? values_.data + strip * kWalkWidth : padded_.data(),
                             .value_stride = whole ? static_cast<std::size_t>(values_.row_stride) : kWalkWidth,
                             .chosen = stretch.data(),
                             .keys = stretch.size()},
                            rows, sums.data() + strip * rows * kWalkWidth);
      }
    }
  }

 private:
  View values_;
  std::size_t whole_;
  std::size_t strips_;
  std::vector<float> padded_;  // [T][kWalkWidth]: the dimensions that don't fill a strip, then zeros
};

}  // namespace

SetLosses set_losses(const SetInput& input) {
  const auto keys = static_cast<std::size_t>(input.attention.columns);
  std::vector<std::uint32_t> mask(keys, ~0U);  // of what stays
  std::fill_n(mask.begin(), input.tokens, 0U);
  for (const std::uint32_t j : input.kept) mask[j] = ~0U;
  std::vector<std::uint32_t> kept;
  std::vector<std::uint32_t> dropped;
  for (std::uint32_t j = 0; j < keys; ++j) (mask[j] != 0 ? kept : dropped).push_back(j);
  const Outputs outputs(input.values);
  const auto rows = static_cast<std::size_t>(input.attention.rows);
  Sums stays;
  Sums goes;
  SetLosses losses;
  for (std::int64_t h = 0; h < input.attention.heads; ++h) {
    const View attention = input.attention.head_range(h, 1);
    outputs.compute(attention, kept, stays);
    outputs.compute(attention, dropped, goes);
    for (std::size_t r = 0; r < rows; ++r) {
      const double mass = loops().masked_sum(attention.row(0, static_cast<std::int64_t>(r)).data(), mask.data(), keys);
      const double inverse = mass > kNoMass ? 1.0 / mass : 0.0;
      ++losses.rows;
      losses.mass += dropped.empty() ? 1.0 : mass;
      for (std::size_t i = 0; i < outputs.strips() * kWalkWidth; ++i) {
        const std::size_t at = (i / kWalkWidth * rows + r) * kWalkWidth + i % kWalkWidth;
        const double full = static_cast<double>(stays[at]) + static_cast<double>(goes[at]);
        const double error = static_cast<double>(stays[at]) * inverse - full;
        losses.energy += full * full;
        losses.error += dropped.empty() ? 0.0 : error * error;
      }
    }
  }
  return losses;
}

}  // namespace depthkv::cpu
