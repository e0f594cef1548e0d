// SPDX-License-Identifier: Apache-2.0
// What every allocator has to respect, and the ways of sharing that several have in common. Units are layers or heads.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "depthkv/policy.h"

namespace depthkv {

struct Limits {
  std::vector<std::int64_t> floors;
  std::vector<std::int64_t> caps;
};

// Per layer: no less than the protected entries (one entry per
// head where the budget can't hold those), no more than there are.
Limits layer_limits(const LayerInput& input, Budget budget);

// The budget in proportion to the layers' sizes.
std::vector<std::int64_t> split_evenly(const LayerInput& input, Budget budget);

// The budget in proportion to `per_head` times the layer's heads, within the limits.
std::vector<std::int64_t> share_per_head(const LayerInput& input, Budget budget, std::span<const double> per_head);

// The protected entries of every layer and the rest in proportion to `per_head` times the layer's heads: what papers
// mean by a capacity beyond the window. The even split where not even the protected ones fit.
std::vector<std::int64_t> share_beyond_protected(const LayerInput& input, Budget budget,
                                                 std::span<const double> per_head);

// A layer as a split over its heads sees it.
struct HeadSize {
  std::size_t heads = 0;
  std::int64_t tokens = 0;
  std::int64_t skip = 0;  // protected per head
};
HeadSize size_of(const HeadInput& input);

// Per head: no less than the protected entries; one where those don't fit; nothing where not even that does.
Limits head_limits(const HeadSize& size, std::int64_t entries);

std::vector<std::int64_t> split_evenly(const HeadSize& size, std::int64_t entries);

// As above, over heads.
std::vector<std::int64_t> share_beyond_protected(const HeadSize& size, std::int64_t entries,
                                                 std::span<const double> weights);

// Units that are content with `lean` entries get those, but never more than their even share; the others share the rest
// evenly, and what they have no room for goes back to the lean ones.
std::vector<std::int64_t> share_leanly(std::int64_t total, std::span<const std::optional<std::int64_t>> lean,
                                       const Limits& limits);

}  // namespace depthkv
