// SPDX-License-Identifier: Apache-2.0
// What accumulate_losses and set_losses share: rows of attention side by side. Private to the CPU back end.
#pragma once
#include <algorithm>
#include <span>
#include <vector>

#include "depthkv/tensor.h"
#include "kernels/loops/loops.h"
#include "kernels/scratch.h"
#include "kernels/transpose.h"

namespace depthkv::cpu {

constexpr std::size_t kStretch = 64;  // entries whose values stay in the first-level cache
constexpr std::size_t kSums = kWalkRows * kWalkWidth;

// out [keys][stride >= kWalkRows] from up to kWalkRows rows [keys], zeros for those that there aren't.
inline void interleave_rows(std::span<const float* const> rows, std::size_t keys, float* out, std::size_t stride) {
  constexpr std::size_t kAtOnce = 8;
  static_assert(kWalkRows % kAtOnce == 0);
  const std::vector<float> none(rows.size() < kWalkRows ? keys : 0);
  for (std::size_t first = 0; first < kWalkRows; first += kAtOnce) {
    const float* from[kAtOnce];
    for (std::size_t r = 0; r < kAtOnce; ++r) from[r] = first + r < rows.size() ? rows[first + r] : none.data();
    std::size_t j = 0;
    for (; j + kAtOnce <= keys; j += kAtOnce) {
      transpose_eight(from, out + j * stride + first, stride);
      for (const float*& row : from) row += kAtOnce;
    }
    for (std::size_t left = 0; j < keys; ++j, ++left)
      for (std::size_t r = 0; r < kAtOnce; ++r) out[j * stride + first + r] = from[r][left];
  }
}

// Calls visit(rows) for groups of up to kWalkRows rows of [G, R, T], head by head.
template <class Visit>
void for_row_groups(const View& attention, Visit visit) {
  std::vector<const float*> rows;
  for (std::int64_t h = 0; h < attention.heads; ++h) {
    for (std::int64_t r = 0; r < attention.rows; ++r) {
      rows.push_back(attention.row(h, r).data());
      if (rows.size() < kWalkRows) continue;
      visit(std::span<const float* const>(rows));
      rows.clear();
    }
  }
  if (!rows.empty()) visit(std::span<const float* const>(rows));
}

// Values [T][d] of one KV head with zeros up to a multiple of kWalkWidth.
class PaddedValues {
 public:
  explicit PaddedValues(const View& values)
      : strips_((static_cast<std::size_t>(values.columns) + kWalkWidth - 1) / kWalkWidth),
        from_(values.row(0, 0).data()),
        stride_(static_cast<std::size_t>(values.row_stride)) {
    if (strips_ * kWalkWidth == static_cast<std::size_t>(values.columns)) return;
    stride_ = strips_ * kWalkWidth;
    padded_.assign(static_cast<std::size_t>(values.rows) * stride_, 0.0F);
    for (std::int64_t j = 0; j < values.rows; ++j)
      std::ranges::copy(values.row(0, j), padded_.data() + static_cast<std::size_t>(j) * stride_);
    from_ = padded_.data();
  }
  PaddedValues(const PaddedValues&) = delete;
  PaddedValues& operator=(const PaddedValues&) = delete;

  std::size_t strips() const { return strips_; }  // of kWalkWidth dimensions
  std::size_t stride() const { return stride_; }
  const float* strip(std::size_t strip) const { return from_ + strip * kWalkWidth; }  // [T][stride]

  // sums [strip][kWalkWidth][kWalkRows] += values by weights [T][weight_stride >= kWalkRows], a stretch at a time so
  // that its weights stay in the first-level cache for all strips.
  void add_up(const float* weights, std::size_t weight_stride, std::span<const std::uint32_t> entries,
              float* sums) const {
    for (std::size_t first = 0; first < entries.size(); first += kStretch)
      add_stretch(weights, weight_stride, entries.subspan(first), sums);
  }

  // Likewise the first stretch of `entries`; the rest are asked for.
  void add_stretch(const float* weights, std::size_t weight_stride, std::span<const std::uint32_t> entries,
                   float* sums) const {
    const std::size_t count = std::min(kStretch, entries.size());
    for (std::size_t s = 0; s < strips_; ++s) {
      loops().weighted_sums({.weights = weights,
                             .weight_stride = weight_stride,
                             .values = strip(s),
                             .value_stride = stride_,
                             .order = entries.data(),
                             .entries = count,
                             .following = entries.size() - count},
                            sums + s * kSums);
    }
  }

 private:
  std::size_t strips_;
  const float* from_;
  std::size_t stride_;
  Scratch padded_;
};

}  // namespace depthkv::cpu
