// SPDX-License-Identifier: Apache-2.0
// How policies and results are named and averaged in tables, plots and JSON alike.
#pragma once
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "depthkv/replay.h"
#include "depthkv/verify.h"

namespace depthkv {

// "snapkv", or "snapkv (window=64)" where the plan has the scorer more than once; the protection likewise.
std::string ranker_label(const ResultTable& results, std::size_t ranker);
std::string layer_label(const ResultTable& results, std::size_t layer_allocator);
std::string head_label(const ResultTable& results, std::size_t head_allocator);
std::string policy_label(const ResultTable& results, PolicyIndex policy);

// Metrics in the order of reports.
inline constexpr std::array kShownMetrics{Metric::predicted_loss, Metric::output_error, Metric::mass, Metric::evidence};

// A policy as tables and files name it, with all parameters: the columns and a policy's fields, side by side. The first
// kRankerColumns say who ranks.
inline constexpr std::size_t kRankerColumns = 7;
const std::vector<std::string>& policy_columns();
std::vector<std::string> policy_fields(const ResultTable& results, PolicyIndex index);

// Means of a candidate over its samples: kl, top1, nll, nll_full, score, score_full; NaN where nothing was measured.
std::vector<std::pair<std::string, double>> candidate_means(const Verification& verification, std::size_t candidate);

}  // namespace depthkv
