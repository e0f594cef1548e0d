// SPDX-License-Identifier: Apache-2.0
// The direct path: kept sets that no ranking holds, evaluated one by one.
#pragma once
#include <vector>

#include "replay/layer_pass.h"

namespace depthkv {

// An allocation under a ranker, and what is lost by it.
struct SetRequest {
  Variant variant;
  Allocation allocation;
  std::array<double, kMetrics.size()> loss{};  // of judged rows, over layers; filled by measure_sets
};

// Walks over the layers once for all requests. Rankers without Structure::select keep the start of their ranking, which
// gives what their curves give.
void measure_sets(const Trace& trace, const ReplayPlan& plan, const Policies& policies,
                  std::vector<SetRequest>& requests);

// Positions kept per (request, prunable layer, KV head), ascending, handed over layer by layer.
using SetVisit =
    std::function<void(std::size_t request, std::size_t layer, const std::vector<std::vector<std::uint32_t>>& kept)>;
void visit_sets(const Trace& trace, const ReplayPlan& plan, const Policies& policies,
                const std::vector<SetRequest>& requests, const SetVisit& visit);

// What the requests remove, for the model to be run without it.
std::vector<KeepMask> masks_of(const Trace& trace, const ReplayPlan& plan, const Policies& policies,
                               const std::vector<SetRequest>& requests);

}  // namespace depthkv
