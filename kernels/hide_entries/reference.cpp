// SPDX-License-Identifier: Apache-2.0
#include <limits>

#include "kernels/hide_entries/hide_entries.h"

namespace depthkv::reference {

void hide_entries(const Logits& logits, const ColumnSets& hidden, std::span<const std::uint32_t> row_sets) {
  for (std::int64_t h = 0; h < logits.heads; ++h) {
    for (std::int64_t r = 0; r < logits.rows; ++r) {
      const std::span<const std::uint32_t> set =
          hidden.set(h / (logits.heads / hidden.heads), row_sets[static_cast<std::size_t>(r)]);
      const std::span<float> row = logits.row(h, r);
      for (std::size_t j = 0; j < row.size() && j / 32 < set.size(); ++j)
        if ((set[j / 32] >> j % 32 & 1U) != 0) row[j] = -std::numeric_limits<float>::infinity();
    }
  }
}

}  // namespace depthkv::reference
