// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "traces/checks.h"
#include "traces/layout.h"

namespace depthkv {
namespace {

constexpr double kRounding = 1e-4;  // single precision, with room

// What a scalar may be at most; the least is 0.
double most_of(HiddenScalar scalar, const Trace& trace) {
  const double rank = static_cast<double>(std::min(trace.sample().segments.prompt_end, trace.model().embedding));
  switch (scalar) {
    case HiddenScalar::curvature:
    case HiddenScalar::curvature_code:
      return std::numbers::pi;
    case HiddenScalar::prompt_entropy:
      return std::log(rank);
    case HiddenScalar::effective_rank:
      break;
  }
  return rank;
}

}  // namespace

void check_hidden(const Trace& trace, int layer, const AddProblem& add) {
  const auto name = [&](Channel channel) {
    return fmt::format("{}/{}", layout::layer_group(layer), to_string(channel));
  };
  if (trace.has(Channel::hidden_scalars, layer)) {
    const Tensor scalars = trace.hidden_scalars(layer);
    for (const Stage stage : kStages) {
      for (const HiddenScalar scalar : kHiddenScalars) {
        const double value = scalars.row(static_cast<std::int64_t>(stage), 0)[static_cast<std::size_t>(scalar)];
        const double most = most_of(scalar, trace);
        if (value >= 0 && value <= most + kRounding * (1 + most)) continue;
        add(name(Channel::hidden_scalars), fmt::format("{} of stage {} is {:.6g}, expected 0 to {:.6g}",
                                                       to_string(scalar), to_string(stage), value, most));
      }
    }
  }
  if (trace.has(Channel::attention_cosines, layer)) {
    const Tensor cosines = trace.attention_cosines(layer);
    const auto wrong = std::ranges::count_if(cosines.values(), [](float x) { return !(std::abs(x) <= 1 + kRounding); });
    if (wrong > 0) add(name(Channel::attention_cosines), fmt::format("{} values aren't cosines", wrong));
  }
  if (trace.has(Channel::hidden_unit_mean, layer)) {
    const Tensor means = trace.hidden_unit_mean(layer);
    for (const Stage stage : kStages) {
      double square = 0;
      for (const float x : means.row(static_cast<std::int64_t>(stage), 0))
        square += static_cast<double>(x) * static_cast<double>(x);
      if (square <= 1 + kRounding) continue;
      add(name(Channel::hidden_unit_mean), fmt::format("stage {} has the norm {:.6g}, a mean of unit rows at most 1",
                                                       to_string(stage), std::sqrt(square)));
    }
  }
}

}  // namespace depthkv
