// SPDX-License-Identifier: Apache-2.0
// What a recording takes, from a few short ones.
#pragma once
#include <cstdint>
#include <vector>

namespace depthkv {

// A timed recording.
struct Timing {
  std::int64_t tokens = 0;     // of prompt and answer
  std::int64_t generated = 0;  // of them, one by one
  double seconds = 0;
};

// Every token costs the same, every pair of tokens (attention) and every step of a generation something more.
struct RecordingCost {
  double per_token = 0;
  double per_pair = 0;
  double per_step = 0;
  // Of all spectra of a sample's hidden states, times min(tokens, width)^3.
  double per_cube = 0;
  std::int64_t width = 0;

  double seconds(std::int64_t tokens, std::int64_t generated) const;
};

// The cost that a short and a long recording without generation agree with; `generating` (none: 0 tokens) gives the
// steps. Never negative, however the timings scatter.
RecordingCost fit_cost(const Timing& shorter, const Timing& longer, const Timing& generating);

}  // namespace depthkv
