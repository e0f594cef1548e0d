// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "kernels/attention_rows/attention_rows.h"
#include "kernels/attention_rows/blocks.h"

namespace depthkv::cpu {

Tensor attention_rows(const View& queries, const View& keys, std::span<const std::int32_t> positions,
                      SoftmaxSpec spec) {
  const std::int64_t group = queries.heads / keys.heads;
  Tensor rows = Tensor::unwritten(queries.heads, queries.rows, keys.rows);
  for (std::int64_t h = 0; h < queries.heads; h += group) {
    const TransposedKeys transposed(keys, h / group);
    SoftmaxWalk walk(transposed, spec);
    for (std::int64_t head = h; head < h + group; ++head) {
      walk.run(
          queries.head_range(head, 1), [&](std::int64_t r) { return positions[static_cast<std::size_t>(r)]; },
          [&](const SoftmaxRows& block) {
            for (std::size_t r = 0; r < block.rows; ++r) {
              const float* from = block.values + r * block.stride;
              const auto to = rows.row(head, block.first_row + static_cast<std::int64_t>(r));
              std::fill_n(to.begin(), walk.begin(r), 0.0F);
              for (std::size_t j = walk.begin(r); j < walk.seen(r); ++j) to[j] = from[j] * block.inverse[r];
              std::fill(to.begin() + static_cast<std::ptrdiff_t>(walk.seen(r)), to.end(), 0.0F);
            }
          });
    }
  }
  return rows;
}

}  // namespace depthkv::cpu
