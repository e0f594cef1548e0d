// SPDX-License-Identifier: Apache-2.0
// Ways to order every head's scores, best first and stable, to be timed beside the op `rank`. The only user of Highway
// and Boost.
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

#include "depthkv/tensor.h"

namespace depthkv {

struct SegmentedSort {
  std::string_view name;
  // orders [H * n]: of each row of scores [H, 1, n] the positions by falling score, ties by position.
  void (*run)(const View& scores, std::vector<std::uint32_t>& orders);
};
const std::vector<SegmentedSort>& segmented_sorts();

}  // namespace depthkv
