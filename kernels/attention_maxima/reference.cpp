// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "kernels/attention_maxima/attention_maxima.h"
#include "kernels/attention_rows/attention_rows.h"

namespace depthkv::reference {

void attention_maxima(const View& queries, const HalfRows& keys, std::int64_t first, SoftmaxSpec spec,
                      std::span<const float> weights, std::span<float> maxima) {
  const Tensor rows = attention_rows(queries, keys, first, spec);
  const auto size = static_cast<std::size_t>(queries.heads * keys.rows);
  for (std::size_t w = 0; w * size < maxima.size(); ++w) {
    for (std::int64_t h = 0; h < queries.heads; ++h) {
      for (std::int64_t r = 0; r < queries.rows; ++r) {
        const double weight = weights[w * static_cast<std::size_t>(queries.rows) + static_cast<std::size_t>(r)];
        const std::size_t seen = static_cast<std::size_t>(first + r) + 1;
        for (std::size_t j = first_seen(seen, spec); j < seen; ++j) {
          float& most = maxima[w * size + static_cast<std::size_t>(h * keys.rows) + j];
          const double value = weight * static_cast<double>(rows.row(h, r)[j]);
          if (std::isnan(value) || value > static_cast<double>(most)) most = static_cast<float>(value);
        }
      }
    }
  }
}

}  // namespace depthkv::reference
