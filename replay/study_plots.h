// SPDX-License-Identifier: Apache-2.0
// The study's drawings.
#pragma once
#include <string>
#include <vector>

#include "depthkv/study.h"
#include "replay/svg.h"

namespace depthkv {

// What pruning each layer does: of all tasks, then of each; z-scored over layers, intervals by a bootstrap over
// samples. Nothing where the drop wasn't measured.
std::vector<Plot> ablation_plots(const Study& study, Drop drop);
// Ranks of layers by each metric of hidden states against their ranks by the KL of pruning them, mean over all samples.
std::vector<Plot> metric_plots(const Study& study);
// Kept share of every layer under every layer allocator, one drawing per keep.
std::vector<Plot> budget_plots(const ResultTable& results, const Verification& verification);
// KL, and the task score where there is one, against keep, policies side by side; intervals by a bootstrap over
// samples.
std::vector<Plot> outcome_plots(const ResultTable& results, const Verification& verification);

// Means of kept shares over samples, [prunable layer]; empty where they aren't known.
std::vector<double> mean_kept(const Verification& verification, std::size_t candidate);
// A candidate's policy: the layer allocator, and what else tells it from the other candidates.
std::string candidate_label(const ResultTable& results, const Verification& verification, std::size_t candidate);

}  // namespace depthkv
