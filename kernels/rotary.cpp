// SPDX-License-Identifier: Apache-2.0
#include "kernels/rotary.h"

#include <algorithm>
#include <cmath>

namespace depthkv {
namespace {

void turn(std::span<float> x, double by, double factor, const Rotary& rotary) {
  if (rotary.pairs == Rotary::Pairs::none) return;
  for (std::size_t c = 0; c < rotary.frequencies.size(); ++c) {
    const auto [i, j] = rotary_pair(rotary, c);
    const double cosine = factor * std::cos(by * rotary.frequencies[c]);
    const double sine = factor * std::sin(by * rotary.frequencies[c]);
    const double a = static_cast<double>(x[i]);
    const double b = static_cast<double>(x[j]);
    x[i] = static_cast<float>(a * cosine - b * sine);
    x[j] = static_cast<float>(a * sine + b * cosine);
  }
}

}  // namespace

Rotary rotary_of(const ModelCard& model, int layer) {
  const auto at = static_cast<std::size_t>(layer);
  Rotary rotary;
  if (model.rotary_layout == "interleaved") rotary.pairs = Rotary::Pairs::interleaved;
  if (model.rotary_layout == "half_split") rotary.pairs = Rotary::Pairs::half_split;
  if (rotary.pairs == Rotary::Pairs::none) return rotary;
  if (model.rotations.empty()) {
    rotary.frequencies = plain_frequencies(model.rotary_base, static_cast<std::size_t>(model.layers.at(at).head_dim));
  } else {
    rotary.frequencies = model.rotations.at(at).frequencies;
    rotary.magnitude = model.rotations.at(at).magnitude;
  }
  return rotary;
}

std::vector<double> plain_frequencies(double base, std::size_t n) {
  std::vector<double> frequencies;
  for (std::size_t c = 0; c < n / 2; ++c)
    frequencies.push_back(std::pow(base, -2.0 * static_cast<double>(c) / static_cast<double>(n)));
  return frequencies;
}

std::pair<std::size_t, std::size_t> rotary_pair(const Rotary& rotary, std::size_t c) {
  return rotary.pairs == Rotary::Pairs::half_split ? std::pair(c, c + rotary.frequencies.size())
                                                   : std::pair(2 * c, 2 * c + 1);
}

void rotate(std::span<float> x, double position, const Rotary& rotary) { turn(x, position, rotary.magnitude, rotary); }

void unrotate(std::span<float> x, double position, const Rotary& rotary) {
  turn(x, -position, 1 / rotary.magnitude, rotary);
}

Tensor unrotated(const View& rows, const Rotary& rotary) {
  Tensor out(rows.heads, rows.rows, rows.columns);
  for (std::int64_t h = 0; h < rows.heads; ++h) {
    for (std::int64_t j = 0; j < rows.rows; ++j) {
      std::ranges::copy(rows.row(h, j), out.row(h, j).begin());
      unrotate(out.row(h, j), static_cast<double>(j), rotary);
    }
  }
  return out;
}

}  // namespace depthkv
