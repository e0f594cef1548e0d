// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "depthkv/allocation.h"
#include "depthkv/error.h"
#include "depthkv/shape.h"

namespace depthkv {

std::int64_t Shape::heads() const {
  return std::accumulate(layers.begin(), layers.end(), std::int64_t{0},
                         [](std::int64_t sum, const LayerShape& layer) { return sum + layer.kv_heads; });
}

std::int64_t Shape::entries() const { return tokens * heads(); }

Budget budget_from_keep(const Shape& shape, double keep) {
  if (!(keep > 0 && keep <= 1)) {
    throw InputError(
        fmt::format("keep is {}, expected a kept fraction in (0, 1]: 0.4 keeps 40 % of the entries", keep));
  }
  const auto nearest = static_cast<std::int64_t>(std::floor(keep * static_cast<double>(shape.entries()) + 0.5));
  return {std::clamp(nearest, std::min(shape.heads(), shape.entries()), shape.entries())};
}

std::int64_t Allocation::total() const {
  std::int64_t sum = 0;
  for (const auto& layer : kept) sum = std::accumulate(layer.begin(), layer.end(), sum);
  return sum;
}

namespace {

void check_share(std::int64_t total, std::span<const double> weights, std::span<const std::int64_t> floors,
                 std::span<const std::int64_t> caps) {
  if (floors.size() != weights.size() || caps.size() != weights.size()) {
    throw Error(fmt::format("share_out got {} weights, {} floors, {} caps; expected as many of each", weights.size(),
                            floors.size(), caps.size()));
  }
  std::int64_t lowest = 0;
  std::int64_t highest = 0;
  for (std::size_t u = 0; u < weights.size(); ++u) {
    if (!std::isfinite(weights[u]) || weights[u] < 0) {
      throw Error(fmt::format("weight {} of {} is {}, expected a finite number >= 0", u, weights.size(), weights[u]));
    }
    if (floors[u] > caps[u]) throw Error(fmt::format("unit {} has floor {} above its cap {}", u, floors[u], caps[u]));
    lowest += floors[u];
    highest += caps[u];
  }
  if (total < lowest || total > highest) {
    throw Error(fmt::format("a budget of {} does not fit between the floors' sum {} and the caps' sum {}", total,
                            lowest, highest));
  }
}

// Real-valued water filling: clamp(level * weight, floor, cap) with the level that makes the sum exact. Each round
// fixes the units that break the limit that is broken by more in total; those are final (as CSS resolves flexible
// lengths).
std::vector<double> water_fill(std::int64_t total, std::span<const double> weights,
                               std::span<const std::int64_t> floors, std::span<const std::int64_t> caps) {
  const std::size_t units = weights.size();
  std::vector<double> weight(weights.begin(), weights.end());
  std::vector<double> share(units);
  std::vector<bool> open(units, true);
  auto left = static_cast<double>(total);
  while (true) {
    double weight_sum = 0;
    for (std::size_t u = 0; u < units; ++u) weight_sum += open[u] ? weight[u] : 0.0;
    if (weight_sum == 0) {  // what no weight asks for goes evenly to those with room
      std::fill(weight.begin(), weight.end(), 1.0);
      weight_sum = static_cast<double>(std::count(open.begin(), open.end(), true));
      if (weight_sum == 0) return share;
    }
    double above = 0;
    double below = 0;
    for (std::size_t u = 0; u < units; ++u) {
      if (!open[u]) continue;
      share[u] = left * weight[u] / weight_sum;
      above += std::max(0.0, share[u] - static_cast<double>(caps[u]));
      below += std::max(0.0, static_cast<double>(floors[u]) - share[u]);
    }
    if (above == 0 && below == 0) return share;
    double fixed = 0;
    for (std::size_t u = 0; u < units; ++u) {
      const auto limit = static_cast<double>(above >= below ? caps[u] : floors[u]);
      if (!open[u] || (above >= below ? share[u] <= limit : share[u] >= limit)) continue;
      open[u] = false;
      share[u] = limit;
      fixed += limit;
    }
    left -= fixed;
  }
}

}  // namespace

std::vector<std::int64_t> share_out(std::int64_t total, std::span<const double> weights,
                                    std::span<const std::int64_t> floors, std::span<const std::int64_t> caps) {
  check_share(total, weights, floors, caps);
  const std::vector<double> share = water_fill(total, weights, floors, caps);
  std::vector<std::int64_t> result(weights.size());
  std::vector<std::size_t> order(weights.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (std::size_t u = 0; u < share.size(); ++u) {
    result[u] = std::clamp(static_cast<std::int64_t>(std::floor(share[u])), floors[u], caps[u]);
  }
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return share[a] - std::floor(share[a]) > share[b] - std::floor(share[b]);
  });
  // Rounding of doubles can leave the sum a few units off either way on huge totals, so both directions are walked.
  std::int64_t missing = total - std::accumulate(result.begin(), result.end(), std::int64_t{0});
  while (missing != 0) {
    for (const std::size_t u : order) {
      if (missing > 0 && result[u] < caps[u]) {
        ++result[u];
        --missing;
      } else if (missing < 0 && result[u] > floors[u]) {
        --result[u];
        ++missing;
      }
      if (missing == 0) break;
    }
  }
  return result;
}

}  // namespace depthkv
