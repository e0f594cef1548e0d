// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include "kernels/accumulate_losses/accumulate_losses.h"

namespace depthkv::reference {
namespace {

struct Sum {
  double mass = 0;
  std::vector<double> weighted;  // sum of a v

  void add(float a, std::span<const float> v) {
    mass += static_cast<double>(a);
    for (std::size_t c = 0; c < v.size(); ++c) weighted[c] += static_cast<double>(a) * static_cast<double>(v[c]);
  }
};

void accumulate_row(const LossInput& input, std::span<const std::uint32_t> ranking, std::span<const float> row,
                    LossCurves& curves) {
  const std::size_t n = ranking.size();
  const auto d = static_cast<std::size_t>(input.values.columns);
  const auto value = [&](std::size_t j) { return input.values.row(0, static_cast<std::int64_t>(j)); };
  Sum full{0, std::vector<double>(d)};
  for (std::size_t j = 0; j < row.size(); ++j) full.add(row[j], value(j));
  for (const double o : full.weighted) curves.energy += o * o;
  ++curves.rows;

  Sum kept{0, std::vector<double>(d)};
  for (std::size_t j = n; j < row.size(); ++j) kept.add(row[j], value(j));
  for (std::size_t k = 0; k < n; ++k) {
    curves.mass[k] += kept.mass;
    for (std::size_t c = 0; c < d; ++c) {
      const double o = kept.mass > kNoMass ? kept.weighted[c] / kept.mass : 0.0;
      curves.error[k] += (o - full.weighted[c]) * (o - full.weighted[c]);
    }
    kept.add(row[ranking[k]], value(ranking[k]));
  }
  curves.mass[n] += 1;
}

}  // namespace

void accumulate_losses(const LossInput& input, std::span<LossCurves> curves) {
  for (std::size_t i = 0; i < curves.size(); ++i) {
    for (std::int64_t h = 0; h < input.attention.heads; ++h) {
      for (std::int64_t r = 0; r < input.attention.rows; ++r)
        accumulate_row(input, input.rankings[i], input.attention.row(h, r), curves[i]);
    }
  }
}

}  // namespace depthkv::reference
