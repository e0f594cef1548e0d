// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include "kernels/accumulate_losses/launchers.h"
#include "kernels/set_losses/set_losses.h"

namespace depthkv::cuda {
namespace {

struct Parted {
  std::vector<unsigned> kept;  // with all that can't be pruned
  std::vector<unsigned> dropped;
};

Parted part(const SetInput& input) {
  std::vector<bool> stays(static_cast<std::size_t>(input.attention.columns), false);
  for (const std::uint32_t j : input.kept) stays[j] = true;
  for (auto j = static_cast<std::size_t>(input.tokens); j < stays.size(); ++j) stays[j] = true;
  Parted parted;
  for (unsigned j = 0; j < stays.size(); ++j) (stays[j] ? parted.kept : parted.dropped).push_back(j);
  return parted;
}

Sums sums_of(Lane& lane, const LossRows& rows, const std::vector<unsigned>& positions) {
  return weighted_sums(lane, rows, lane.upload(std::span(positions)), 0, static_cast<std::int64_t>(positions.size()));
}

}  // namespace

SetLosses set_losses(const SetInput& input) {
  const Parted parted = part(input);
  SetLosses losses;
  const std::int64_t all = input.attention.heads * input.attention.rows;
  in_parts(all, 1, [&](Lane& lane, std::int64_t first, std::int64_t count) {
    const LossRows rows =
        upload_rows(lane, input.attention, first, count, upload_values(lane, input.values), input.values.columns);
    const Sums kept = sums_of(lane, rows, parted.kept);
    const Sums dropped = sums_of(lane, rows, parted.dropped);
    const auto size = static_cast<std::size_t>(rows.rows * rows.columns);
    const auto stays = lane.download(kept.values, size);
    const auto goes = lane.download(dropped.values, size);
    const auto mass = lane.download(kept.mass, static_cast<std::size_t>(rows.rows));
    lane.wait();
    const auto columns = static_cast<std::size_t>(rows.columns);
    for (std::size_t r = 0; r < static_cast<std::size_t>(count); ++r) {
      const double inverse = mass[r] > kNoMass ? 1.0 / mass[r] : 0.0;
      losses.mass += parted.dropped.empty() ? 1.0 : mass[r];
      for (std::size_t i = r * columns; i < (r + 1) * columns; ++i) {
        const double full = static_cast<double>(stays[i]) + static_cast<double>(goes[i]);
        const double error = static_cast<double>(stays[i]) * inverse - full;
        losses.energy += full * full;
        losses.error += parted.dropped.empty() ? 0.0 : error * error;
      }
    }
    losses.rows += count;
  });
  return losses;
}

}  // namespace depthkv::cuda
