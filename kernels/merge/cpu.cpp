// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <numeric>

#include "kernels/attention_rows/blocks.h"
#include "kernels/merge/merge.h"

namespace depthkv::cpu {
namespace {

// The first of the largest, or of those that are no numbers.
std::size_t first_of_best(std::span<const float> values) {
  constexpr std::size_t kLanes = 16;
  std::array<float, kLanes> most;
  most.fill(values[0]);
  std::array<float, kLanes> none{};  // 1 once there was one that is no number
  std::size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      const float x = values[i + lane];
      most[lane] = x > most[lane] ? x : most[lane];
      none[lane] = x != x ? 1.0F : none[lane];
    }
  }
  float best = *std::ranges::max_element(most);
  float any = std::accumulate(none.begin(), none.end(), 0.0F);
  for (; i < values.size(); ++i) {
    best = values[i] > best ? values[i] : best;
    any += values[i] != values[i] ? 1.0F : 0.0F;
  }
  const auto at =
      any == 0 ? std::ranges::find(values, best) : std::ranges::find_if(values, [](float x) { return x != x; });
  return static_cast<std::size_t>(at - values.begin());
}

}  // namespace

Nearest nearest_kept(const View& keys, std::span<const std::uint32_t> kept, std::span<const std::uint32_t> dropped) {
  Nearest nearest{std::vector<std::uint32_t>(dropped.size()), std::vector<float>(dropped.size(), -1.0F)};
  if (kept.empty()) return nearest;
  const Tensor there = gather_rows(keys, kept);
  const Tensor away = gather_rows(keys, dropped);
  const std::vector<float> kept_inverse = inverse_norms(there.view());
  const std::vector<float> dropped_inverse = inverse_norms(away.view());
  std::vector<float> cosines(kept.size());
  for_products(TransposedKeys(there.view(), 0), away.view(), [&](std::int64_t row, const float* products) {
    const auto e = static_cast<std::size_t>(row);
    for (std::size_t t = 0; t < cosines.size(); ++t)
      cosines[t] = products[t] * kept_inverse[t];  // but for a factor that all share
    const std::size_t best = first_of_best(cosines);
    nearest.kept[e] = static_cast<std::uint32_t>(best);
    nearest.similarity[e] = cosines[best] * dropped_inverse[e];
  });
  return nearest;
}

Tensor merge_rows(const MergeInput& input) {
  const MergeLists lists = lists_of(input);
  Tensor merged = Tensor::unwritten(1, static_cast<std::int64_t>(input.kept.size()), input.rows.columns);
  std::vector<double> sums(static_cast<std::size_t>(input.rows.columns));
  for (std::size_t t = 0; t < input.kept.size(); ++t) {
    std::ranges::copy(input.rows.row(0, input.kept[t]), sums.begin());
    double divisor = 1;
    for (std::uint32_t m = lists.begins[t]; m < lists.begins[t + 1]; ++m) {
      const std::uint32_t e = lists.members[m];
      const double weight = static_cast<double>(input.weights[e]);
      const auto row = input.rows.row(0, input.dropped[e]);
      for (std::size_t c = 0; c < sums.size(); ++c) sums[c] += weight * static_cast<double>(row[c]);
      divisor += static_cast<double>(input.shares[e]);
    }
    const auto to = merged.row(0, static_cast<std::int64_t>(t));
    for (std::size_t c = 0; c < sums.size(); ++c) to[c] = static_cast<float>(sums[c] / divisor);
  }
  return merged;
}

}  // namespace depthkv::cpu
