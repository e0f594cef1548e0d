// SPDX-License-Identifier: Apache-2.0
// What ablation says of layers as a whole: per task, and of all samples together.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "replay/csv.h"
#include "replay/layer_drops.h"

namespace depthkv {
namespace {

constexpr int kPermutations = 9999;
constexpr double kAlpha = 0.05;
constexpr std::size_t kMostSamples = 1024;  // that a study is asked for

// What a pruned layer cost; nothing of rows that show noise, which kl is counted from.
double cost_of(const AblationRow& row, Drop drop) {
  switch (drop) {
    case Drop::kl:
      return row.kl;
    case Drop::score:
      return row.score_full - row.score;
    case Drop::length:
      return 1 - row.length_ratio;
  }
  return kUnmeasured;
}

TaskLayers tested(const std::string& task, Drop drop, const LayerDrops& drops) {
  const LayerTest test = test_equal_layers(drops, kPermutations, kReportSeed);
  return {task, drop, test, test.p, samples_needed(drops, kAlpha, kMostSamples, kReportSeed)};
}

void survey(const std::vector<AblationRow>& rows, Drop drop, std::vector<TaskLayers>& found) {
  const std::map<std::string, LayerDrops> tasks = drops_by_task(rows, drop);
  std::vector<double> p;
  const std::size_t first = found.size();
  for (const auto& [task, drops] : tasks) {
    if (drops[0].size() < 2) return;  // one layer is equal to itself
    found.push_back(tested(task, drop, drops));
    p.push_back(found.back().test.p);
  }
  const std::vector<double> adjusted = holm_adjusted(p);
  for (std::size_t t = 0; t < adjusted.size(); ++t) found[first + t].p_holm = adjusted[t];
  if (tasks.size() > 1) found.push_back(tested(kAllTasks, drop, pooled(tasks)));
}

}  // namespace

std::string_view to_string(Drop drop) {
  constexpr std::string_view kNames[] = {"kl", "score", "length"};
  return kNames[static_cast<std::size_t>(drop)];
}

std::map<std::string, LayerDrops> drops_by_task(const std::vector<AblationRow>& rows, Drop drop) {
  struct Layer {
    std::vector<double> costs;
    double noise = 0;
  };
  std::map<std::pair<std::string, std::string>, std::map<int, Layer>> samples;
  for (const AblationRow& row : rows) {
    Layer& layer = samples[{row.task, row.sample}][row.layer];
    if (row.keep != 1) {
      layer.costs.push_back(cost_of(row, drop));
    } else if (drop == Drop::kl) {
      layer.noise = row.kl;
    }
  }
  std::map<std::string, LayerDrops> tasks;
  for (const auto& [name, layers] : samples) {
    std::vector<double> drops;
    for (const auto& [_, layer] : layers) drops.push_back(mean(layer.costs) - layer.noise);
    if (std::ranges::all_of(drops, [](double x) { return std::isfinite(x); }))
      tasks[name.first].push_back(std::move(drops));
  }
  return tasks;
}

LayerDrops pooled(const std::map<std::string, LayerDrops>& tasks) {
  LayerDrops all;
  for (const auto& [_, drops] : tasks) all.insert(all.end(), drops.begin(), drops.end());
  return all;
}

std::vector<double> mean_drops(const LayerDrops& drops) {
  std::vector<double> means(drops.empty() ? 0 : drops[0].size(), 0.0);
  for (const std::vector<double>& row : drops)
    for (std::size_t l = 0; l < means.size(); ++l) means[l] += row[l] / static_cast<double>(drops.size());
  return means;
}

std::vector<TaskLayers> survey_layers(const std::vector<AblationRow>& rows) {
  std::vector<TaskLayers> found;
  for (const Drop drop : kDrops) survey(rows, drop, found);
  return found;
}

void write_layer_tests_csv(const std::vector<TaskLayers>& tests, const std::filesystem::path& file) {
  CsvWriter csv({"task", "drop", "samples", "p", "p_holm", "eta_squared", "kendall_w", "samples_needed"});
  for (const TaskLayers& it : tests)
    csv.row({it.task, std::string(to_string(it.drop)), fmt::format("{}", it.test.samples), csv_number(it.test.p),
             csv_number(it.p_holm), csv_number(it.test.eta_squared), csv_number(it.test.kendall_w),
             it.samples_needed == 0 ? "" : fmt::format("{}", it.samples_needed)});
  write_file(file, csv.text());
}

}  // namespace depthkv
