// SPDX-License-Identifier: Apache-2.0
#include "kernels/rotary.h"

#include <algorithm>
#include <cmath>

namespace depthkv {

std::pair<std::size_t, std::size_t> rotary_pair(const Rotary& rotary, std::size_t c, std::size_t d) {
  return rotary.pairs == Rotary::Pairs::half_split ? std::pair(c, c + d / 2) : std::pair(2 * c, 2 * c + 1);
}

std::vector<double> rotary_frequencies(const Rotary& rotary, std::size_t d) {
  std::vector<double> frequencies;
  for (std::size_t c = 0; c < d / 2; ++c)
    frequencies.push_back(std::pow(rotary.base, -2.0 * static_cast<double>(c) / static_cast<double>(d)));
  return frequencies;
}

void rotate(std::span<float> x, double by, const Rotary& rotary) {
  if (rotary.pairs == Rotary::Pairs::none) return;
  const std::vector<double> frequencies = rotary_frequencies(rotary, x.size());
  for (std::size_t c = 0; c < frequencies.size(); ++c) {
    const auto [i, j] = rotary_pair(rotary, c, x.size());
    const double cosine = std::cos(by * frequencies[c]);
    const double sine = std::sin(by * frequencies[c]);
    const double a = static_cast<double>(x[i]);
    const double b = static_cast<double>(x[j]);
    x[i] = static_cast<float>(a * cosine - b * sine);
    x[j] = static_cast<float>(a * sine + b * cosine);
  }
}

Tensor unrotated(const View& rows, const Rotary& rotary) {
  Tensor out(rows.heads, rows.rows, rows.columns);
  for (std::int64_t h = 0; h < rows.heads; ++h) {
    for (std::int64_t j = 0; j < rows.rows; ++j) {
      std::ranges::copy(rows.row(h, j), out.row(h, j).begin());
      rotate(out.row(h, j), -static_cast<double>(j), rotary);
    }
  }
  return out;
}

}  // namespace depthkv
