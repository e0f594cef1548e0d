// SPDX-License-Identifier: Apache-2.0
// What ablation says of layers as a whole: per task, and of all samples together.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "depthkv/layer_tests.h"
#include "replay/csv.h"
#include "replay/layer_test.h"

namespace depthkv {
namespace {

constexpr int kPermutations = 9999;
constexpr std::uint64_t kSeed = 1;
constexpr double kAlpha = 0.05;
constexpr std::size_t kMostSamples = 1024;  // that a study is asked for

// Of each sample, by layer: the mean KL over budgets, less what a single entry of that layer costs.
std::map<std::string, LayerDrops> drops_by_task(const std::vector<AblationRow>& rows) {
  std::map<std::pair<std::string, std::string>, std::map<int, std::pair<std::vector<double>, double>>> samples;
  for (const AblationRow& row : rows) {
    auto& [kl, noise] = samples[{row.task, row.sample}][row.layer];
    if (row.keep == 1) {
      noise = row.kl;
    } else {
      kl.push_back(row.kl);
    }
  }
  std::map<std::string, LayerDrops> tasks;
  for (const auto& [name, layers] : samples) {
    std::vector<double>& drops = tasks[name.first].emplace_back();
    for (const auto& [_, measured] : layers) drops.push_back(mean(measured.first) - measured.second);
  }
  return tasks;
}

TaskLayers tested(const std::string& task, const LayerDrops& drops) {
  const LayerTest test = test_equal_layers(drops, kPermutations, kSeed);
  return {task, test, test.p, samples_needed(drops, kAlpha, kMostSamples, kSeed)};
}

}  // namespace

std::vector<TaskLayers> survey_layers(const std::vector<AblationRow>& rows) {
  std::vector<TaskLayers> found;
  std::vector<double> p;
  LayerDrops all;
  for (const auto& [task, drops] : drops_by_task(rows)) {
    if (drops[0].size() < 2) return {};  // one layer is equal to itself
    found.push_back(tested(task, drops));
    p.push_back(found.back().test.p);
    all.insert(all.end(), drops.begin(), drops.end());
  }
  const std::vector<double> adjusted = holm_adjusted(p);
  for (std::size_t t = 0; t < found.size(); ++t) found[t].p_holm = adjusted[t];
  if (found.size() > 1) found.push_back(tested("all", all));
  return found;
}

void write_layer_tests_csv(const std::vector<TaskLayers>& tests, const std::filesystem::path& file) {
  CsvWriter csv({"task", "samples", "p", "p_holm", "eta_squared", "kendall_w", "samples_needed"});
  for (const TaskLayers& it : tests)
    csv.row({it.task, fmt::format("{}", it.test.samples), csv_number(it.test.p), csv_number(it.p_holm),
             csv_number(it.test.eta_squared), csv_number(it.test.kendall_w),
             it.samples_needed == 0 ? "" : fmt::format("{}", it.samples_needed)});
  write_file(file, csv.text());
}

}  // namespace depthkv
