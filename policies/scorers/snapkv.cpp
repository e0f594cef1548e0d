// SPDX-License-Identifier: Apache-2.0
// snapkv: attention received from the last `window` rows, pooled over neighbours.   Li et al. 2024, arXiv:2404.14469
// S[j] = pool(mean over the window's rows t of A[t, j]) for j < n - window; the window itself always stays. The
// official code sums the rows: the same order, but what adds a constant to scores (structure critical) or compares them
// with one (threshold) expects kvpress's mean. Defaults are the official code's (32, 5, avg). `order`: pool before or
// after the group is reduced; they differ for max (kvpress pools first). Average pooling divides by the kernel at the
// edges too, as the official code does, so position 0 of kernel 5 gets 3/5.
#include <fmt/format.h>

#include <algorithm>

#include "depthkv/error.h"
#include "depthkv/policy.h"
#include "policies/scorers/group.h"

namespace depthkv {
namespace {

// One-dimensional pooling, stride 1, zero or -inf padding of kernel / 2. `length` columns take part.
void pool(std::span<float> row, std::int64_t length, std::int64_t kernel, bool average) {
  const std::vector<float> in(row.begin(), row.begin() + length);
  const std::int64_t reach = kernel / 2;
  for (std::int64_t j = 0; j < length; ++j) {
    double sum = 0;
    float top = in[static_cast<std::size_t>(j)];
    for (std::int64_t i = std::max<std::int64_t>(0, j - reach); i <= std::min(length - 1, j + reach); ++i) {
      sum += static_cast<double>(in[static_cast<std::size_t>(i)]);
      top = std::max(top, in[static_cast<std::size_t>(i)]);
    }
    row[static_cast<std::size_t>(j)] = average ? static_cast<float>(sum / static_cast<double>(kernel)) : top;
  }
}

void pool_heads(Tensor& scores, std::int64_t length, std::int64_t kernel, bool average) {
  for (std::int64_t h = 0; h < scores.heads(); ++h) pool(scores.row(h, 0), length, kernel, average);
}

}  // namespace

Scorer make_snapkv(Params& params) {
  const auto window = params.take_in("window", std::int64_t{32}, 1, 128);
  const auto kernel = params.take_in("kernel", std::int64_t{5}, 1, 1023);
  if (kernel % 2 == 0)
    throw InputError(
        fmt::format("scorer snapkv: kernel is {}, expected an odd number: the entry itself is the middle", kernel));
  const bool average = params.take_choice("pool", "avg", {"avg", "max"}) == "avg";
  const bool pool_first =
      params.take_choice("order", "group_then_pool", {"group_then_pool", "pool_then_group"}) == "pool_then_group";
  Scorer scorer;
  const Reduction reduction = take_group(params, "mean", scorer.group);
  scorer.needs = needs({Feature::window}, window);
  scorer.score = [=](const LayerFeatures& layer, const Ops& ops) {
    const std::int64_t rows = std::min(window, layer.tokens);
    const std::int64_t before = layer.tokens - rows;
    Tensor means = ops.column_sums(layer.window.row_range(layer.window.rows - rows, rows));
    for (float& x : means.values()) x /= static_cast<float>(rows);
    if (pool_first) pool_heads(means, before, kernel, average);
    Tensor scores = reduce_group(means.view(), layer.shape.group(), reduction);
    if (!pool_first) pool_heads(scores, before, kernel, average);
    for (std::int64_t g = 0; g < scores.heads(); ++g) {
      const auto row = scores.row(g, 0);
      std::fill(row.begin() + before, row.end(), kForced);
    }
    return scores;
  };
  return scorer;
}

}  // namespace depthkv
