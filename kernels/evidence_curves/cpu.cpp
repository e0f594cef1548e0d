// SPDX-License-Identifier: Apache-2.0
// Few positions are marked, so that next to all entries repeat the share before them.
#include <algorithm>

#include "kernels/evidence_curves/evidence_curves.h"

namespace depthkv::cpu {

Tensor evidence_curves(const Ranking& ranking, std::span<const std::uint8_t> marked) {
  const auto total = std::ranges::count_if(marked, [](std::uint8_t mark) { return mark != 0; });
  if (total == 0) return {};
  Tensor curves = Tensor::unwritten(ranking.heads(), 1, ranking.tokens() + 1);
  for (std::int64_t g = 0; g < ranking.heads(); ++g) {
    float* to = curves.row(g, 0).data();
    auto left = total;
    float share = 1;
    *to++ = share;
    for (const std::uint32_t position : ranking.head(g)) {
      if (marked[position] != 0) share = static_cast<float>(static_cast<double>(--left) / static_cast<double>(total));
      *to++ = share;
    }
  }
  return curves;
}

}  // namespace depthkv::cpu
