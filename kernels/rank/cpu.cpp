// SPDX-License-Identifier: Apache-2.0
// One integer sort per head: the score's bits, made monotone and inverted, above the position. Keys are distinct, so
// any sort is stable.
#include <algorithm>
#include <bit>
#include <cmath>
#include <string>
#include <vector>

#include "depthkv/error.h"
#include "kernels/rank/rank.h"

namespace depthkv::cpu {
namespace {

// Rises as the score falls.
std::uint32_t descending_bits(float score) {
  const auto bits = std::bit_cast<std::uint32_t>(score == 0.0F ? 0.0F : score);  // -0 and 0 are equal
  const std::uint32_t ascending = (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
  return ~ascending;
}

}  // namespace

Ranking rank(const View& scores, Protect protect) {
  const std::int64_t n = scores.columns;
  const std::int64_t first = std::min(protect.first, n);
  const std::int64_t last = std::min(protect.last, n - first);
  Ranking ranking(scores.heads, n);
  std::vector<std::uint64_t> keys;
  for (std::int64_t g = 0; g < scores.heads; ++g) {
    const auto score = scores.row(g, 0);
    keys.clear();
    for (std::int64_t j = 0; j < n; ++j) {
      const float x = score[static_cast<std::size_t>(j)];
      if (std::isnan(x)) {
        throw Error("the score of KV head " + std::to_string(g) + ", position " + std::to_string(j) +
                    " is not a number; the scorer or the trace is broken");
      }
      if (j >= first && j < n - last)
        keys.push_back(std::uint64_t{descending_bits(x)} << 32 | static_cast<std::uint64_t>(j));
    }
    std::sort(keys.begin(), keys.end());
    auto at = ranking.head(g).begin();
    for (std::int64_t j = 0; j < first; ++j) *at++ = static_cast<std::uint32_t>(j);
    for (std::int64_t j = n - last; j < n; ++j) *at++ = static_cast<std::uint32_t>(j);
    for (const std::uint64_t key : keys) *at++ = static_cast<std::uint32_t>(key);
  }
  return ranking;
}

}  // namespace depthkv::cpu
