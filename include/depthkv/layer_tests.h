// SPDX-License-Identifier: Apache-2.0
// Whether layers matter differently at all, by what ablation measured.
#pragma once
#include <array>
#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "depthkv/importance.h"

namespace depthkv {

// What pruning a layer does: the KL that it costs, less what a single entry costs there; by how much the task score
// falls; by which share answers get shorter.
enum class Drop { kl, score, length };
inline constexpr std::array kDrops{Drop::kl, Drop::score, Drop::length};
std::string_view to_string(Drop drop);

// A permutation test of equal layers, and how large the differences are.
struct LayerTest {
  std::size_t samples = 0;
  std::size_t layers = 0;
  double statistic = 0;  // variance over layers of the mean over samples
  // (1 + permutations with at least that statistic) / (1 + permutations): never zero.   Phipson, Smyth 2010
  double p = 1;
  // Share of the variance within samples that layers account for, 0 to 1.
  double eta_squared = 0;
  // Kendall's W: how far samples agree on the order of the layers, 0 to 1 (ties share ranks).
  double kendall_w = 0;
};

// Whether the layers matter differently on the samples of a task.
struct TaskLayers {
  std::string task;  // "all": every sample, where there are several tasks
  Drop drop = Drop::kl;
  LayerTest test;
  double p_holm = 1;               // corrected for as many tasks of the same drop; p itself for "all"
  std::size_t samples_needed = 0;  // to reject at 0.05 in 80 % of the cases; 0: more than 1,024
};
// Of every drop that was measured; nothing for models of one layer.
std::vector<TaskLayers> survey_layers(const std::vector<AblationRow>& rows);
void write_layer_tests_csv(const std::vector<TaskLayers>& tests, const std::filesystem::path& file);

}  // namespace depthkv
