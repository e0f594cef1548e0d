// SPDX-License-Identifier: Apache-2.0
// Splits with the smallest total loss: exact where loss curves are convex.
#pragma once
#include <cstdint>
#include <vector>

#include "depthkv/policy.h"

namespace depthkv {

struct Point {
  std::int64_t entries;
  double loss;
};
using Curve = std::vector<Point>;  // entries rise from point to point

// Lower convex envelope.
Curve envelope(const Curve& points);

// Every unit starts at its first point; the rest goes along the units' envelopes, steepest pieces first. Equal gains go
// to the lower unit.
class SteepestFirst {
 public:
  explicit SteepestFirst(const std::vector<Curve>& curves);
  // `entries` lies between the sums of the curves' first and last points.
  std::vector<std::int64_t> split(std::int64_t entries) const;

 private:
  // A step along one unit's envelope.
  struct Piece {
    std::size_t unit;
    std::int64_t entries;
    double gain;  // loss avoided per entry
  };
  static constexpr std::size_t kStride = 64;  // pieces between stored counts

  std::vector<Piece> pieces_;
  std::vector<std::int64_t> before_;              // entries given out when a stored count holds
  std::vector<std::vector<std::int64_t>> marks_;  // what each unit has by then
};

// Each layer's loss at budgets from `least_per_head` entries per head on: at all of them where they are few, else dense
// where budgets are small and losses steep. Empty if there is nothing to see (a NaN): a sample without evidence has no
// such loss.
using LayerPrice = std::function<double(std::size_t layer, std::int64_t entries)>;
std::vector<Curve> priced(const LayerInput& input, std::int64_t least_per_head, const LayerPrice& price);

// Moves entries from unit to unit as long as that lowers the total loss, many at a time first, then one by one: on
// convex curves the split that comes out is optimal, where the one that goes in was found on a grid of budgets. Every
// unit stays between the first and last point of its curve.
std::vector<std::int64_t> exchanged(std::vector<std::int64_t> split, const std::vector<Curve>& curves,
                                    const LayerPrice& price);

}  // namespace depthkv
