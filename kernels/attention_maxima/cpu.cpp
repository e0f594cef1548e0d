// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/attention_maxima/attention_maxima.h"
#include "kernels/attention_rows/blocks.h"

namespace depthkv::cpu {
namespace {

// A comparison with NaN is false, so that NaN stays where it is.
void raise(std::span<float> most, const float* values, float inverse, float weight) {
  for (std::size_t j = 0; j < most.size(); ++j) {
    const float value = values[j] * inverse * weight;
    most[j] = most[j] < value ? value : most[j];
  }
}

}  // namespace

void attention_maxima(const View& queries, const HalfRows& keys, std::int64_t first, SoftmaxSpec spec,
                      std::span<const float> weights, std::span<float> maxima) {
  const std::int64_t group = queries.heads / keys.heads;
  const auto count = static_cast<std::size_t>(queries.rows);
  const auto size = static_cast<std::size_t>(queries.heads * keys.rows);
  for (std::int64_t g = 0; g < keys.heads; ++g) {
    const TransposedKeys transposed(keys, g);
    SoftmaxWalk walk(transposed, spec);
    for (std::int64_t head = g * group; head < (g + 1) * group; ++head) {
      walk.run(
          queries.head_range(head, 1), [&](std::int64_t r) { return first + r; },
          [&](const SoftmaxRows& block) {
            for (std::size_t r = 0; r < block.rows; ++r) {
              const std::size_t begin = walk.begin(r);
              const std::size_t row = static_cast<std::size_t>(block.first_row) + r;
              for (std::size_t w = 0; w * size < maxima.size(); ++w) {
                const auto most =
                    maxima.subspan(w * size + static_cast<std::size_t>(head * keys.rows) + begin, walk.seen(r) - begin);
                if (std::isnan(block.inverse[r])) {
                  std::ranges::fill(most, std::numeric_limits<float>::quiet_NaN());
                } else {
                  raise(most, block.values + r * block.stride + begin, block.inverse[r], weights[w * count + row]);
                }
              }
            }
          });
    }
  }
}

}  // namespace depthkv::cpu
