// SPDX-License-Identifier: Apache-2.0
#include "kernels/set_losses/set_losses.h"

#include <vector>

namespace depthkv::reference {

SetLosses set_losses(const SetInput& input) {
  const auto d = static_cast<std::size_t>(input.values.columns);
  std::vector<bool> stays(static_cast<std::size_t>(input.attention.columns), false);
  for (const std::uint32_t j : input.kept) stays[j] = true;
  for (auto j = static_cast<std::size_t>(input.tokens); j < stays.size(); ++j) stays[j] = true;
  SetLosses losses;
  for (std::int64_t h = 0; h < input.attention.heads; ++h) {
    for (std::int64_t r = 0; r < input.attention.rows; ++r) {
      const auto row = input.attention.row(h, r);
      std::vector<double> full(d);
      std::vector<double> kept(d);
      double mass = 0;
      for (std::size_t j = 0; j < row.size(); ++j) {
        const auto value = input.values.row(0, static_cast<std::int64_t>(j));
        for (std::size_t c = 0; c < d; ++c) {
          const double part = static_cast<double>(row[j]) * static_cast<double>(value[c]);
          full[c] += part;
          if (stays[j]) kept[c] += part;
        }
        if (stays[j]) mass += static_cast<double>(row[j]);
      }
      ++losses.rows;
      for (std::size_t c = 0; c < d; ++c) losses.energy += full[c] * full[c];
      if (static_cast<std::int64_t>(input.kept.size()) == input.tokens) {
        losses.mass += 1;
        continue;
      }
      losses.mass += mass;
      for (std::size_t c = 0; c < d; ++c) {
        const double o = mass > kNoMass ? kept[c] / mass : 0.0;
        losses.error += (o - full[c]) * (o - full[c]);
      }
    }
  }
  return losses;
}

}  // namespace depthkv::reference
