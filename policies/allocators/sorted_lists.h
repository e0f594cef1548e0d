// SPDX-License-Identifier: Apache-2.0
// The best entries of many sorted lists at once, for any number of them, without merging the lists.
#pragma once
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "depthkv/policy.h"

namespace depthkv {

class SortedLists {
 public:
  // Scores in the order in which they are kept; an item better than the one before it counts as that one. `cost`:
  // entries that an item of this list stands for.
  void add(std::span<const float> scores, std::int64_t cost = 1);

  // How many of the best `entries` belong to each list, by the rule of kernels/pooled_best. `factors` multiply all
  // scores that aren't forced.
  std::vector<std::int64_t> best(std::int64_t entries, std::span<const double> factors = {},
                                 std::int64_t most = std::numeric_limits<std::int64_t>::max()) const;

 private:
  std::vector<float> scores_;            // list after list
  std::vector<std::int64_t> begins_{0};  // where each begins, and where the next one will
  std::vector<std::int64_t> costs_;
};

// A head's scores in its order, from place `skip` on.
std::vector<float> falling_scores(const HeadInput& input, std::int64_t head, std::int64_t skip);

// All heads of all layers, layer by layer, from place `skip` on.
SortedLists pool_of(const LayerInput& input, std::int64_t skip);
// What the heads of such a pool got, added up per layer.
std::vector<std::int64_t> per_layer(const Shape& shape, std::span<const std::int64_t> heads);

}  // namespace depthkv
