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

  // rows [n, heads, width]; adds one head's. Heads may be added from different threads. How rows are cut into calls
  // doesn't change the result.
  void add(std::int64_t head, std::span<const float> rows);
  // After the last row of both.
  void operator+=(Moments& other);

  // Of `count` rows: mean [heads, width], mean of the outer product [heads, width, width]; 0 without rows.
  void mean(std::int64_t count, std::span<float> out);
  void second(std::int64_t count, std::span<float> out);

 private:
  void flush(std::int64_t head);
  void flush();

  std::int64_t heads_;
  std::int64_t width_;
  std::vector<std::int64_t> pending_;  // [head]: rows that wait
  std::vector<float> rows_;            // [head][kMomentRows][width], zeros from the pending ones on
  std::vector<double> sums_;           // [head][i]
  std::vector<double> products_;       // [head][i][j], j >= i only
};

}  // namespace depthkv
