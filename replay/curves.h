// SPDX-License-Identifier: Apache-2.0
// What a sample costs under every ranker: rankings, head splits and curves. Everything up to here is paid once per
// (sample, layer, ranker); everything after it is arithmetic on these small arrays.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "depthkv/curve.h"
#include "depthkv/replay.h"
#include "depthkv/trace.h"

namespace depthkv {

// Losses of one KV head at kept = 0 .. n, lower is better; empty where not measured.
struct HeadCurves {
  std::vector<float> mass;      // 1 - retained mass, mean over rows and query heads
  std::vector<float> error;     // squared output error over the layer's output energy: adds up over heads
  std::vector<float> evidence;  // share of the evidence tokens lost
};

// One layer under one ranker.
struct RankedLayer {
  Ranking ranking;                   // empty unless asked for
  std::vector<HeadSplit> splits;     // [head allocator]
  std::vector<HeadCurves> judged;    // [KV head]
  std::vector<HeadCurves> observed;  // [KV head]

  // The layer's loss when its heads keep `kept`: mean over heads for mass and evidence, sum for output_error.
  double loss(Rows rows, Metric metric, const std::vector<std::int64_t>& kept) const;
};

struct RankedSample {
  Shape shape;  // tokens = the cut
  std::int64_t judged_rows = 0;
  std::vector<std::optional<std::string>> skipped;  // [ranker] why, or nothing
  std::vector<std::vector<RankedLayer>> layers;     // [ranker][layer]; empty for skipped rankers
};

struct RankRequest {
  std::vector<bool> rankers;  // which of the policies' rankers
  bool keep_rankings = false;
  bool judged = true;     // measure curves on judged rows
  bool observed = false;  // measure curves on observed rows
};
RankedSample rank_sample(const Trace& trace, const ReplayPlan& plan, const Policies& policies,
                         const RankRequest& request);

// Splits the budget of one policy over layers, then heads.
// Checks that both allocators kept their promise of exact sums.
Allocation allocate(const RankedSample& sample, const Policies& policies, PolicyIndex policy, double keep);

}  // namespace depthkv
