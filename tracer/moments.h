// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace depthkv {

// First and second moments of a layer's vectors, per head, added up row by row.
class Moments {
 public:
  Moments(std::int64_t heads, std::int64_t width);

  // rows [n, heads, width]; adds one head's. Heads may be added from different threads.
  void add(std::int64_t head, std::span<const float> rows);
  void operator+=(const Moments& other);

  // Of `count` rows: mean [heads, width], mean of the outer product [heads, width, width]; 0 without rows.
  void mean(std::int64_t count, std::span<float> out) const;
  void second(std::int64_t count, std::span<float> out) const;

 private:
  std::int64_t heads_;
  std::int64_t width_;
  std::vector<double> sums_;      // [head][i]
  std::vector<double> products_;  // [head][i][j], j >= i only
};

}  // namespace depthkv
