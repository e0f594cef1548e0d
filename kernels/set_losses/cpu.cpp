// SPDX-License-Identifier: Apache-2.0
// Sums over kept and dropped entries side by side, in float along the head's dimensions.
#include <algorithm>
#include <vector>

#include "kernels/set_losses/set_losses.h"

namespace depthkv::cpu {
namespace {

// sum += row[j] * value j over the positions; returns sum of row[j].
double add_weighted(const SetInput& input, std::span<const float> row, std::span<const std::uint32_t> positions,
                    std::vector<float>& sum) {
  double mass = 0;
  const std::size_t d = sum.size();
  for (const std::uint32_t j : positions) {
    const float a = row[j];
    const float* value = input.values.row(0, j).data();
    for (std::size_t c = 0; c < d; ++c) sum[c] += a * value[c];
    mass += static_cast<double>(a);
  }
  return mass;
}

}  // namespace

SetLosses set_losses(const SetInput& input) {
  std::vector<bool> chosen(static_cast<std::size_t>(input.tokens), false);
  for (const std::uint32_t j : input.kept) chosen[j] = true;
  std::vector<std::uint32_t> kept;
  std::vector<std::uint32_t> dropped;
  for (std::uint32_t j = 0; j < static_cast<std::uint32_t>(input.attention.columns); ++j)
    (j >= chosen.size() || chosen[j] ? kept : dropped).push_back(j);
  const auto d = static_cast<std::size_t>(input.values.columns);
  std::vector<float> stays(d);
  std::vector<float> goes(d);
  SetLosses losses;
  for (std::int64_t h = 0; h < input.attention.heads; ++h) {
    for (std::int64_t r = 0; r < input.attention.rows; ++r) {
      std::fill(stays.begin(), stays.end(), 0.0F);
      std::fill(goes.begin(), goes.end(), 0.0F);
      const double mass = add_weighted(input, input.attention.row(h, r), kept, stays);
      add_weighted(input, input.attention.row(h, r), dropped, goes);
      const double inverse = mass > kNoMass ? 1.0 / mass : 0.0;
      ++losses.rows;
      losses.mass += dropped.empty() ? 1.0 : mass;
      for (std::size_t c = 0; c < d; ++c) {
        const double full = static_cast<double>(stays[c]) + static_cast<double>(goes[c]);
        const double error = static_cast<double>(stays[c]) * inverse - full;
        losses.energy += full * full;
        losses.error += dropped.empty() ? 0.0 : error * error;
      }
    }
  }
  return losses;
}

}  // namespace depthkv::cpu
