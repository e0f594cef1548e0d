// SPDX-License-Identifier: Apache-2.0
// Keys are transposed once per KV head, so that eight keys' products are computed side by side without horizontal sums.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/attention_rows/attention_rows.h"
#include "kernels/lanes.h"

namespace depthkv::cpu {
namespace {

constexpr std::size_t kTile = 4;  // vectors of keys kept in registers per pass over d

// [d][T rounded up to whole tiles], zeros beyond T.
struct TransposedKeys {
  std::size_t padded;
  std::vector<float> values;

  TransposedKeys(const View& keys, std::int64_t head)
      : padded((static_cast<std::size_t>(keys.rows) + kTile * kLanes - 1) / (kTile * kLanes) * (kTile * kLanes)),
        values(padded * static_cast<std::size_t>(keys.columns)) {
    for (std::int64_t j = 0; j < keys.rows; ++j) {
      const auto key = keys.row(head, j);
      for (std::size_t c = 0; c < key.size(); ++c) values[c * padded + static_cast<std::size_t>(j)] = key[c];
    }
  }
};

void dot_products(std::span<const float> query, const TransposedKeys& keys, std::size_t count, float* out) {
  for (std::size_t j = 0; j < count; j += kTile * kLanes) {
    Lanes sums[kTile] = {};
    for (std::size_t c = 0; c < query.size(); ++c) {
      const Lanes q = all(query[c]);
      const float* key = keys.values.data() + c * keys.padded + j;
      for (std::size_t t = 0; t < kTile; ++t) sums[t] += q * load(key + t * kLanes);
    }
    for (std::size_t t = 0; t < kTile; ++t) store(out + j + t * kLanes, sums[t]);
  }
}

void softmax(std::span<float> logits, SoftmaxSpec spec) {
  const auto scale = static_cast<float>(spec.scale);
  const auto cap = static_cast<float>(spec.softcap);
  float top = -INFINITY;
  for (float& x : logits) {
    x *= scale;
    if (cap > 0) x = cap * std::tanh(x / cap);
    top = std::max(top, x);
  }
  double sum = 0;
  for (float& x : logits) {
    x = std::exp(x - top);
    sum += static_cast<double>(x);
  }
  const auto inverse = static_cast<float>(1.0 / sum);
  for (float& x : logits) x *= inverse;
}

}  // namespace

Tensor attention_rows(const View& queries, const View& keys, std::span<const std::int32_t> positions,
                      SoftmaxSpec spec) {
  const std::int64_t group = queries.heads / keys.heads;
  Tensor rows(queries.heads, queries.rows, keys.rows);
  for (std::int64_t g = 0; g < keys.heads; ++g) {
    const TransposedKeys transposed(keys, g);
    std::vector<float> logits(transposed.padded);
    for (std::int64_t h = g * group; h < (g + 1) * group; ++h) {
      for (std::int64_t r = 0; r < queries.rows; ++r) {
        const auto seen = static_cast<std::size_t>(positions[static_cast<std::size_t>(r)]) + 1;
        dot_products(queries.row(h, r), transposed, seen, logits.data());
        const std::size_t first = first_seen(seen, spec);
        const auto visible = std::span(logits).subspan(first, seen - first);
        softmax(visible, spec);
        std::ranges::copy(visible, rows.row(h, r).subspan(first).begin());
      }
    }
  }
  return rows;
}

}  // namespace depthkv::cpu
