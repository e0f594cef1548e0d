// SPDX-License-Identifier: Apache-2.0
// evidence_curves: the share of marked positions that is lost when the first k entries of a ranking are kept.
//
// ranking [Hkv][n], marked [n], anything but 0 marks. Returns [Hkv, 1, n + 1]: at k = 0 .. n, how many marked positions
// aren't among the first k, divided by how many there are; empty where nothing is marked. Counts are integers, divided
// in double and rounded to float once: 1 at 0, 0 at n, and the same bits on every back end.
#pragma once
#include <cstdint>
#include <span>

#include "depthkv/curve.h"

namespace depthkv {

namespace reference {
Tensor evidence_curves(const Ranking& ranking, std::span<const std::uint8_t> marked);
}
namespace cpu {
Tensor evidence_curves(const Ranking& ranking, std::span<const std::uint8_t> marked);
}
namespace cuda {
Tensor evidence_curves(const Ranking& ranking, std::span<const std::uint8_t> marked);
}

}  // namespace depthkv
