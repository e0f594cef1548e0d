// SPDX-License-Identifier: Apache-2.0
// pooled_best: how many of the best entries of all lists together belong to each list.
//
// Lists fall and hold finite numbers. An item of list u counts with its score times factors[u] (>= 0, product taken in
// double and rounded to float), or as it is where there are no factors or the score is at least `unscaled`; of each
// list the first `most` items count. Items are taken by falling score, equal ones by place in their list, then by list,
// each for costs[u] (>= 1) entries, until `entries` are spent; only the last item taken may be taken in part. Returns
// entries [U], which add up to less than `entries` only where there are no more items. Integers, the same on every back
// end. Lists aren't merged: the threshold is searched for, so that a call costs lists times log items.
//
// Allocators (policies/allocators/sorted_lists.h) call it on the CPU, where their lists are. The head allocator adakv
// asks for every m at once and merges its few lists instead, by the same rule.
#pragma once
#include "depthkv/ops.h"

namespace depthkv {

namespace reference {
std::vector<std::int64_t> pooled_best(const PooledLists& lists, std::int64_t entries);
}
namespace cpu {
std::vector<std::int64_t> pooled_best(const PooledLists& lists, std::int64_t entries);
}
namespace cuda {
std::vector<std::int64_t> pooled_best(const PooledLists& lists, std::int64_t entries);
}

}  // namespace depthkv
