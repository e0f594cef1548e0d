// SPDX-License-Identifier: Apache-2.0
#include "kernels/evidence_curves/evidence_curves.h"

namespace depthkv::reference {

Tensor evidence_curves(const Ranking& ranking, std::span<const std::uint8_t> marked) {
  double total = 0;
  for (const std::uint8_t mark : marked) total += mark != 0 ? 1 : 0;
  if (total == 0) return {};
  Tensor curves(ranking.heads(), 1, ranking.tokens() + 1);
  for (std::int64_t g = 0; g < ranking.heads(); ++g) {
    double lost = total;
    curves.row(g, 0)[0] = 1;
    for (std::size_t k = 0; k < ranking.head(g).size(); ++k) {
      lost -= marked[ranking.head(g)[k]] != 0 ? 1 : 0;
      curves.row(g, 0)[k + 1] = static_cast<float>(lost / total);
    }
  }
  return curves;
}

}  // namespace depthkv::reference
