// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <limits>

#include "traces/checks.h"
#include "traces/layout.h"

namespace depthkv {
namespace {

constexpr float kRowRounding = 1e-4F;  // single precision, with room

// Positions that a row of the channel says something about; others are 0.
Span defined(Repeat repeat, const Segments& segments) {
  return {repeat == Repeat::cache ? 0 : segments.context.begin, segments.context.end};
}

}  // namespace

void check_repeats(const Trace& trace, int layer, const AddProblem& add) {
  if (!trace.has(Channel::repeat_max, layer)) return;
  const Segments& segments = trace.sample().segments;
  const std::string name = fmt::format("{}/{}", layout::layer_group(layer), to_string(Channel::repeat_max));
  for (const Repeat repeat : kRepeats) {
    const Span inside = defined(repeat, segments);
    const float most = repeat == Repeat::chunk_per_input ? std::numeric_limits<float>::max() : 1 + kRowRounding;
    const Tensor maxima = trace.repeat_max(layer, repeat, Cut::prompt);
    std::int64_t outside = 0;
    std::int64_t wrong = 0;
    for (std::int64_t head = 0; head < maxima.heads(); ++head) {
      for (std::int64_t j = 0; j < maxima.columns(); ++j) {
        const float value = maxima.row(head, 0)[static_cast<std::size_t>(j)];
        const bool is_inside = j >= inside.begin && j < inside.end;
        outside += !is_inside && value != 0 ? 1 : 0;
        wrong += is_inside && !(value >= 0 && value <= most) ? 1 : 0;
      }
    }
    if (wrong > 0)
      add(name, fmt::format("{} values of row {} are no {}", wrong, to_string(repeat),
                            repeat == Repeat::chunk_per_input ? "finite numbers from 0 on" : "shares of attention"));
    if (outside > 0)
      add(name, fmt::format("{} values of row {} outside of positions {} to {} aren't 0", outside, to_string(repeat),
                            inside.begin, inside.end));
  }
}

}  // namespace depthkv
