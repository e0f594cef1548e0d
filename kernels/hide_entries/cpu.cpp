// SPDX-License-Identifier: Apache-2.0
// Word by word: most of a long prefix is either kept or hidden in runs of more than 32.
#include <algorithm>
#include <bit>
#include <limits>

#include "kernels/hide_entries/hide_entries.h"

namespace depthkv::cpu {
namespace {

constexpr std::size_t kWord = 32;  // columns

// Columns that aren't there are cut off.
void hide(std::uint32_t word, std::span<float> columns) {
  constexpr float kHidden = -std::numeric_limits<float>::infinity();
  if (columns.size() < kWord) word &= (1U << columns.size()) - 1;
  if (word == ~0U) {
    std::ranges::fill(columns, kHidden);
    return;
  }
  for (; word != 0; word &= word - 1) columns[static_cast<std::size_t>(std::countr_zero(word))] = kHidden;
}

}  // namespace

void hide_entries(const Logits& logits, const ColumnSets& hidden, std::span<const std::uint32_t> row_sets) {
  for (std::int64_t h = 0; h < logits.heads; ++h) {
    for (std::int64_t r = 0; r < logits.rows; ++r) {
      const std::span<const std::uint32_t> set =
          hidden.set(h / (logits.heads / hidden.heads), row_sets[static_cast<std::size_t>(r)]);
      const std::span<float> row = logits.row(h, r);
      for (std::size_t first = 0, w = 0; first < row.size() && w < set.size(); first += kWord, ++w)
        hide(set[w], row.subspan(first, std::min(kWord, row.size() - first)));
    }
  }
}

}  // namespace depthkv::cpu
