// SPDX-License-Identifier: Apache-2.0
// What accumulate_losses and set_losses share: rows of attention side by side. Private to the CPU back end.
#pragma once
#include <algorithm>
#include <span>
#include <vector>

#include "kernels/loops/loops.h"
#include "kernels/scratch.h"
#include "kernels/transpose.h"

namespace depthkv::cpu {

// Blocks of rows that meet a stretch of values while it is in the cache.
constexpr std::size_t kOctets = 4;
constexpr std::size_t kBlockRows = kOctets * kWalkRows;

// out [keys][kWalkRows] from up to kWalkRows rows [keys], zeros for those that there aren't.
inline void interleave_rows(std::span<const float* const> rows, std::size_t keys, float* out) {
  static_assert(kWalkRows == 8);
  std::size_t j = 0;
  if (rows.size() == kWalkRows) {
    const float* from[kWalkRows];
    std::ranges::copy(rows, from);
    for (; j + 8 <= keys; j += 8) {
      transpose_eight(from, out + j * kWalkRows, kWalkRows);
      for (const float*& row : from) row += 8;
    }
  }
  for (; j < keys; ++j)
    for (std::size_t r = 0; r < kWalkRows; ++r) out[j * kWalkRows + r] = r < rows.size() ? rows[r][j] : 0.0F;
}

// Calls visit(rows) for blocks of up to kBlockRows rows of [G, R, T], head by head.
template <class Visit>
void for_row_blocks(const View& attention, Visit visit) {
  std::vector<const float*> rows;
  for (std::int64_t h = 0; h < attention.heads; ++h) {
    for (std::int64_t r = 0; r < attention.rows; ++r) {
      rows.push_back(attention.row(h, r).data());
      if (rows.size() < kBlockRows) continue;
      visit(std::span<const float* const>(rows));
      rows.clear();
    }
  }
  if (!rows.empty()) visit(std::span<const float* const>(rows));
}

}  // namespace depthkv::cpu
