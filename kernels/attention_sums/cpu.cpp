// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention_rows/blocks.h"
#include "kernels/attention_sums/attention_sums.h"

namespace depthkv::cpu {

void attention_sums(const View& queries, const HalfRows& keys, std::int64_t first, SoftmaxSpec spec,
                    std::span<double> sums) {
  const std::int64_t group = queries.heads / keys.heads;
  const auto tokens = static_cast<std::size_t>(keys.rows);
  for (std::int64_t g = 0; g < keys.heads; ++g) {
    const TransposedKeys transposed(keys, g);
    SoftmaxWalk walk(transposed, spec);
    std::vector<double> padded(transposed.padded());
    for (std::int64_t head = g * group; head < (g + 1) * group; ++head) {
      padded.assign(padded.size(), 0.0);
      walk.run(
          queries.head_range(head, 1), [&](std::int64_t r) { return first + r; },
          [&](const SoftmaxRows& block) {
            loops().add_weighted_rows(block.values, block.stride, block.inverse.data(), block.rows, block.first,
                                      block.last, padded.data());
          });
      double* out = sums.data() + static_cast<std::size_t>(head) * tokens;
      for (std::size_t j = 0; j < tokens; ++j) out[j] += padded[j];
    }
  }
}

}  // namespace depthkv::cpu
