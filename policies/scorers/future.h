// SPDX-License-Identifier: Apache-2.0
// Queries to come, guessed from those seen: what expected_attention and cap share.
#pragma once
#include <span>
#include <vector>

#include "depthkv/policy.h"

namespace depthkv {

// The mean over the `horizon` positions after the cache's of the rotation to each of them: a matrix that turns and
// scales every pair of dimensions.
class MeanRotation {
 public:
  MeanRotation(const LayerFeatures& layer, std::int64_t horizon);
  // x or every row of a square matrix [d][d], and its columns after that: R x, R M R^T.
  void turn(std::span<double> x) const;
  void turn_both_sides(std::vector<double>& matrix) const;

 private:
  struct Pair {
    std::size_t first;
    std::size_t second;
    double cosine;
    double sine;
  };
  std::vector<Pair> pairs_;
};

}  // namespace depthkv
