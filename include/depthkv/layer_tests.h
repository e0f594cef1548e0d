// SPDX-License-Identifier: Apache-2.0
// Whether layers matter differently at all, by what ablation measured.
#pragma once
#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "depthkv/importance.h"

namespace depthkv {

// Whether the layers matter differently on the samples of a task.
struct TaskLayers {
  std::string task;  // "all": every sample, where there are several tasks
  std::size_t samples = 0;
  double p = 1;                    // permutation test of equal layers, never 0 (Phipson, Smyth 2010)
  double p_holm = 1;               // corrected for as many tasks; p itself for "all"
  double eta_squared = 0;          // share of the variance within samples that layers account for
  double kendall_w = 0;            // how far samples agree on the order of layers, 0 to 1
  std::size_t samples_needed = 0;  // to reject at 0.05 in 80 % of the cases; 0: more than 1,024
};
// Of the KL that pruning a layer costs, less what a single entry costs there; nothing for models of one layer.
std::vector<TaskLayers> survey_layers(const std::vector<AblationRow>& rows);
void write_layer_tests_csv(const std::vector<TaskLayers>& tests, const std::filesystem::path& file);

}  // namespace depthkv
