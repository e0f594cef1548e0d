// SPDX-License-Identifier: Apache-2.0
#include "policies/allocators/limits.h"

#include <algorithm>
#include <numeric>

namespace depthkv {
namespace {

std::vector<double> as_weights(const std::vector<std::int64_t>& sizes) { return {sizes.begin(), sizes.end()}; }

std::int64_t total_of(const std::vector<std::int64_t>& entries) {
  return std::accumulate(entries.begin(), entries.end(), std::int64_t{0});
}

}  // namespace

Limits layer_limits(const LayerInput& input, Budget budget) {
  Limits limits;
  const auto floors_of = [&](std::int64_t per_head) {
    limits.floors.clear();
    for (const LayerShape& layer : input.shape.layers) limits.floors.push_back(per_head * layer.kv_heads);
    return total_of(limits.floors);
  };
  for (const LayerShape& layer : input.shape.layers) limits.caps.push_back(layer.kv_heads * input.shape.tokens);
  const std::int64_t least = std::min<std::int64_t>(1, input.shape.tokens);
  if (floors_of(std::max(least, input.protected_per_head)) > budget.entries) floors_of(least);
  return limits;
}

std::vector<std::int64_t> split_evenly(const LayerInput& input, Budget budget) {
  const Limits limits = layer_limits(input, budget);
  return share_out(budget.entries, as_weights(limits.caps), limits.floors, limits.caps);
}

std::vector<std::int64_t> share_per_head(const LayerInput& input, Budget budget, std::span<const double> per_head) {
  const Limits limits = layer_limits(input, budget);
  std::vector<double> weights(per_head.begin(), per_head.end());
  for (std::size_t l = 0; l < weights.size(); ++l) weights[l] *= input.shape.layers[l].kv_heads;
  return share_out(budget.entries, weights, limits.floors, limits.caps);
}

std::vector<std::int64_t> share_beyond_protected(const LayerInput& input, Budget budget,
                                                 std::span<const double> per_head) {
  const std::int64_t kept = input.protected_per_head;
  const std::int64_t open = budget.entries - kept * input.shape.heads();
  if (open < 0) return split_evenly(input, budget);
  Limits beyond = layer_limits(input, budget);
  std::vector<double> weights;
  for (std::size_t l = 0; l < per_head.size(); ++l) {
    const std::int64_t heads = input.shape.layers[l].kv_heads;
    beyond.floors[l] -= kept * heads;
    beyond.caps[l] -= kept * heads;
    weights.push_back(per_head[l] * static_cast<double>(heads));
  }
  std::vector<std::int64_t> entries = share_out(open, weights, beyond.floors, beyond.caps);
  for (std::size_t l = 0; l < entries.size(); ++l) entries[l] += kept * input.shape.layers[l].kv_heads;
  return entries;
}

HeadSize size_of(const HeadInput& input) {
  const std::int64_t tokens = input.scores.columns;
  return {static_cast<std::size_t>(input.scores.heads), tokens,
          std::min(tokens, input.protect.first + input.protect.last)};
}

Limits head_limits(const HeadSize& size, std::int64_t entries) {
  const auto heads = static_cast<std::int64_t>(size.heads);
  const std::int64_t least = entries >= heads * size.skip && size.skip > 0 ? size.skip : entries >= heads ? 1 : 0;
  return {std::vector<std::int64_t>(size.heads, least), std::vector<std::int64_t>(size.heads, size.tokens)};
}

std::vector<std::int64_t> split_evenly(const HeadSize& size, std::int64_t entries) {
  const std::vector<double> equal(size.heads, 1.0);
  return share_out(entries, equal, std::vector<std::int64_t>(size.heads, 0),
                   std::vector<std::int64_t>(size.heads, size.tokens));
}

std::vector<std::int64_t> share_beyond_protected(const HeadSize& size, std::int64_t entries,
                                                 std::span<const double> weights) {
  const std::int64_t open = entries - static_cast<std::int64_t>(size.heads) * size.skip;
  if (open < 0) return split_evenly(size, entries);
  const std::int64_t least = size.skip == 0 && open >= static_cast<std::int64_t>(size.heads) ? 1 : 0;
  std::vector<std::int64_t> kept = share_out(open, weights, std::vector<std::int64_t>(size.heads, least),
                                             std::vector<std::int64_t>(size.heads, size.tokens - size.skip));
  for (std::int64_t& k : kept) k += size.skip;
  return kept;
}

std::vector<std::int64_t> share_leanly(std::int64_t total, std::span<const std::optional<std::int64_t>> lean,
                                       const Limits& limits) {
  const std::vector<double> sizes = as_weights(limits.caps);
  const std::vector<std::int64_t> even = share_out(total, sizes, limits.floors, limits.caps);
  Limits first = limits;
  for (std::size_t u = 0; u < lean.size(); ++u) {
    if (lean[u]) first.floors[u] = first.caps[u] = std::clamp(*lean[u], limits.floors[u], even[u]);
  }
  if (total_of(first.caps) >= total) return share_out(total, sizes, first.floors, first.caps);
  return share_out(total, sizes, first.caps, limits.caps);
}

}  // namespace depthkv
