// SPDX-License-Identifier: Apache-2.0
// rank: best-first order of every head's entries. scores [Hkv, 1, n], larger = keep.
//
// The first protect.first positions come first, then the last protect.last that aren't among them, each by rising
// position; then the rest by falling score, equal scores (-0 equals 0) by rising position. Infinities order as
// expected. NaN throws Error. The result is the same bytes on every back end.
#pragma once
#include "depthkv/curve.h"

namespace depthkv {

namespace reference {
Ranking rank(const View& scores, Protect protect);
}
namespace cpu {
Ranking rank(const View& scores, Protect protect);
}
namespace cuda {
Ranking rank(const View& scores, Protect protect);
}

}  // namespace depthkv
