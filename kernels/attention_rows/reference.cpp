// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/attention_rows/attention_rows.h"
#include "kernels/half.h"

namespace depthkv::reference {

Tensor attention_rows(const View& queries, const View& keys, std::span<const std::int32_t> positions,
                      SoftmaxSpec spec) {
  const std::int64_t group = queries.heads / keys.heads;
  Tensor rows(queries.heads, queries.rows, keys.rows);
  for (std::int64_t h = 0; h < queries.heads; ++h) {
    for (std::int64_t r = 0; r < queries.rows; ++r) {
      const auto seen = static_cast<std::size_t>(positions[static_cast<std::size_t>(r)]) + 1;
      std::vector<double> logits(seen, -INFINITY);
      for (std::size_t j = first_seen(seen, spec); j < seen; ++j) {
        double dot = 0;
        for (std::int64_t c = 0; c < queries.columns; ++c) {
          const auto i = static_cast<std::size_t>(c);
          dot += static_cast<double>(queries.row(h, r)[i]) *
                 static_cast<double>(keys.row(h / group, static_cast<std::int64_t>(j))[i]);
        }
        logits[j] = spec.scale * dot;
        if (spec.softcap > 0) logits[j] = spec.softcap * std::tanh(logits[j] / spec.softcap);
      }
      const double top = *std::max_element(logits.begin(), logits.end());
      double sum = 0;
      for (const double logit : logits) sum += std::exp(logit - top);
      for (std::size_t j = 0; j < seen; ++j) rows.row(h, r)[j] = static_cast<float>(std::exp(logits[j] - top) / sum);
    }
  }
  return rows;
}

Tensor attention_rows(const View& queries, const HalfRows& keys, std::int64_t first, SoftmaxSpec spec) {
  Tensor wide(keys.heads, keys.rows, keys.columns);
  for (std::int64_t g = 0; g < keys.heads; ++g)
    for (std::int64_t j = 0; j < keys.rows; ++j) from_half(keys.row(g, j), wide.row(g, j));
  std::vector<std::int32_t> positions(static_cast<std::size_t>(queries.rows));
  std::iota(positions.begin(), positions.end(), static_cast<std::int32_t>(first));
  return attention_rows(queries, wide.view(), positions, spec);
}

}  // namespace depthkv::reference
