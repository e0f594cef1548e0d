// SPDX-License-Identifier: Apache-2.0
// The window of last observed rows, and pooling over neighbouring positions: what SnapKV's relatives share.
#pragma once
#include <span>
#include <string>

#include "depthkv/policy.h"

namespace depthkv {

// Attention of the last min(count, n) observed rows, [H, rows, n], and the number of positions before the first of
// them.
struct Observed {
  View rows;
  std::int64_t before = 0;
};
Observed last_rows(const LayerFeatures& layer, std::int64_t count);

// The parameter `window`: recorded windows reach 128 rows.
std::int64_t take_window(Params& params, std::int64_t fallback);
// The parameter `kernel` of `scorer`: odd, so that the entry itself is the middle.
std::int64_t take_kernel(Params& params, const std::string& scorer, std::int64_t fallback);

enum class Pool { avg, max };

// Pools the first `length` columns of every head, stride 1, as many columns out as in. What lies beyond the edge is
// zero for avg, which divides by the whole kernel all the same (as torch does), and doesn't take part for max.
void pool(std::span<float> row, std::int64_t length, std::int64_t kernel, Pool kind);
void pool_heads(Tensor& scores, std::int64_t length, std::int64_t kernel, Pool kind);

// Forces the positions from `begin` on in every head, which puts the windows of all heads before anything else.
void force_from(Tensor& scores, std::int64_t begin);

}  // namespace depthkv
