// SPDX-License-Identifier: Apache-2.0
// quantise: rows as they come back from b bits, asymmetric between the least and the most of a group.   Liu et al. 2024
// (KIVI), arXiv:2402.02750
//
// rows [H, n, d]. A group is `size` neighbouring tokens of one channel (KIVI's keys) or `size` neighbouring channels of
// one token (its values), from the first on; the last group of a head or row may be shorter and has a range of its own.
// KIVI leaves recent tokens, and keys that don't fill a group, as they are: those rows are not to be handed over. With
// levels = 2^b - 1 and step = (most - least) / levels,
//   level = (x - least) / step, to the nearest integer, halves to even;  result = least + level * step,
// all in double, the result rounded to float once: the same bits on every back end. So the least and the most come back
// as they are, and quantising twice is quantising once. A group of equal values comes back as it is. A group with NaN
// or an infinity comes back as NaN, all of it. KIVI stores step and least in half precision; here they are exact.
// Throws Error unless 1 <= bits <= 8 and size >= 1.
#pragma once
#include "depthkv/ops.h"

namespace depthkv {

namespace reference {
Tensor quantise(const View& rows, QuantiseSpec spec);
}
namespace cpu {
Tensor quantise(const View& rows, QuantiseSpec spec);
}
namespace cuda {
Tensor quantise(const View& rows, QuantiseSpec spec);
}

// What the back ends share: levels of a group, 2^bits - 1; checks the spec.
double levels_of(QuantiseSpec spec);

}  // namespace depthkv
