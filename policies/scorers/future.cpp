// SPDX-License-Identifier: Apache-2.0
#include "policies/scorers/future.h"

#include <cmath>

#include "kernels/rotary.h"

namespace depthkv {

MeanRotation::MeanRotation(const LayerFeatures& layer, std::int64_t horizon) {
  if (layer.rotary.pairs == Rotary::Pairs::none) return;
  const std::vector<double>& frequencies = layer.rotary.frequencies;
  const std::int64_t next = layer.tokens + layer.left_out;
  for (std::size_t c = 0; c < frequencies.size(); ++c) {
    const auto [first, second] = rotary_pair(layer.rotary, c);
    Pair pair{first, second, 0, 0};
    for (std::int64_t p = next; p < next + horizon; ++p) {
      pair.cosine += std::cos(static_cast<double>(p) * frequencies[c]) / static_cast<double>(horizon);
      pair.sine += std::sin(static_cast<double>(p) * frequencies[c]) / static_cast<double>(horizon);
    }
    pair.cosine *= layer.rotary.magnitude;
    pair.sine *= layer.rotary.magnitude;
    pairs_.push_back(pair);
  }
}

void MeanRotation::turn(std::span<double> x) const {
  for (const Pair& pair : pairs_) {
    const double a = x[pair.first];
    const double b = x[pair.second];
    x[pair.first] = a * pair.cosine - b * pair.sine;
    x[pair.second] = a * pair.sine + b * pair.cosine;
  }
}

void MeanRotation::turn_both_sides(std::vector<double>& matrix) const {
  const auto d = static_cast<std::size_t>(std::llround(std::sqrt(static_cast<double>(matrix.size()))));
  std::vector<double> column(d);
  for (std::size_t row = 0; row < d; ++row) turn(std::span(matrix).subspan(row * d, d));
  for (std::size_t c = 0; c < d; ++c) {
    for (std::size_t row = 0; row < d; ++row) column[row] = matrix[row * d + c];
    turn(column);
    for (std::size_t row = 0; row < d; ++row) matrix[row * d + c] = column[row];
  }
}

}  // namespace depthkv
