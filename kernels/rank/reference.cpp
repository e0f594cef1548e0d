// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "depthkv/error.h"
#include "kernels/rank/rank.h"

namespace depthkv::reference {

Ranking rank(const View& scores, Protect protect) {
  const std::int64_t n = scores.columns;
  Ranking ranking(scores.heads, n);
  for (std::int64_t g = 0; g < scores.heads; ++g) {
    const auto score = scores.row(g, 0);
    for (std::int64_t j = 0; j < n; ++j) {
      if (std::isnan(score[static_cast<std::size_t>(j)])) {
        throw Error("the score of KV head " + std::to_string(g) + ", position " + std::to_string(j) +
                    " is not a number; the scorer or the trace is broken");
      }
    }
    // 0: sink, 1: recent, 2: everything else.
    const auto place = [&](std::uint32_t j) {
      return j < protect.first ? 0 : static_cast<std::int64_t>(j) >= n - protect.last ? 1 : 2;
    };
    const auto order = ranking.head(g);
    std::iota(order.begin(), order.end(), 0U);
    std::stable_sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
      if (place(a) != place(b)) return place(a) < place(b);
      return place(a) == 2 && score[a] > score[b];
    });
  }
  return ranking;
}

}  // namespace depthkv::reference
