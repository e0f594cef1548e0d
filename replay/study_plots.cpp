// SPDX-License-Identifier: Apache-2.0
#include "replay/study_plots.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

#include "replay/labels.h"
#include "replay/layer_drops.h"

namespace depthkv {
namespace {

constexpr double kApart = 0.004;  // of policies at the same keep

const char* description(Drop drop) {
  constexpr const char* kTexts[] = {"KL to the full cache", "fall of the task score", "shortening of answers"};
  return kTexts[static_cast<std::size_t>(drop)];
}

// Mean and deviation over layers.
struct Scale {
  explicit Scale(const std::vector<double>& x) : middle(mean(x)) {
    double sum = 0;
    for (const double value : x) sum += (value - middle) * (value - middle);
    deviation = std::sqrt(sum / static_cast<double>(x.size()));
  }
  double z(double value) const { return deviation > 0 ? (value - middle) / deviation : 0; }

  double middle;
  double deviation = 0;
};

Plot ablation_plot(const Study& study, Drop drop, const std::string& task, const LayerDrops& drops) {
  const std::vector<double> means = mean_drops(drops);
  const Scale scale(means);
  Series series{fmt::format("{} samples", drops.size()), {}};
  for (std::size_t l = 0; l < means.size(); ++l) {
    std::vector<double> column;
    for (const std::vector<double>& row : drops) column.push_back(row[l]);
    const Interval interval = bootstrap_mean(column, kReportSeed);
    series.points.emplace_back(study.ablation.importance.layers[l].layer, scale.z(means[l]));
    series.spread.push_back({scale.z(interval.low), scale.z(interval.high)});
  }
  return {fmt::format("one layer pruned, {}: {}", task == kAllTasks ? "all tasks" : task, description(drop)),
          "layer",
          "z-score over layers",
          {series}};
}

// A policy's rows, by candidate.
std::vector<double> values_of(const Verification& verification, std::size_t candidate, double VerifyRow::*value) {
  std::vector<double> values;
  for (const VerifyRow& row : verification.rows)
    if (row.candidate == candidate && !std::isnan(row.*value)) values.push_back(row.*value);
  return values;
}

Plot outcome_plot(const ResultTable& results, const Verification& verification, const std::string& name,
                  double VerifyRow::*value) {
  Plot plot{name + ", end to end", "kept share of the cache", name, {}};
  std::map<std::string, Series> series;
  for (std::size_t c = 0; c < verification.candidates.size(); ++c) {
    const std::vector<double> values = values_of(verification, c, value);
    if (values.empty()) continue;
    Series& own = series[candidate_label(results, verification, c)];
    own.dashed = verification.candidates[c].role == kBound;
    own.points.emplace_back(verification.candidates[c].choice.keep, mean(values));
    own.spread.push_back(bootstrap_mean(values, kReportSeed));
  }
  // Side by side at each keep, so that whiskers can be told apart.
  double shift = -kApart * static_cast<double>(series.size() - 1) / 2;
  for (auto& [label, own] : series) {
    own.name = label;
    for (auto& point : own.points) point.first += shift;
    shift += kApart;
    plot.series.push_back(own);
  }
  return plot;
}

}  // namespace

std::vector<Plot> ablation_plots(const Study& study, Drop drop) {
  const std::map<std::string, LayerDrops> tasks = drops_by_task(study.ablation.rows, drop);
  std::vector<Plot> plots;
  if (tasks.size() > 1) plots.push_back(ablation_plot(study, drop, kAllTasks, pooled(tasks)));
  for (const auto& [task, drops] : tasks) plots.push_back(ablation_plot(study, drop, task, drops));
  return plots;
}

std::vector<Plot> metric_plots(const Study& study) {
  const std::vector<double> drops = mean_drops(pooled(drops_by_task(study.ablation.rows, Drop::kl)));
  const std::vector<double> costs = mid_ranks(drops);
  std::vector<Plot> plots;
  for (const MetricProfile& profile : study.profiles) {
    if (profile.stage == kStages.front())
      plots.push_back({profile.metric + " and what pruning the layer costs",
                       "rank of the layer by " + profile.metric,
                       "rank by the KL of pruning it",
                       {},
                       false});
    const std::vector<double> ranks = mid_ranks(profile.value);
    Series series{fmt::format("{}, rho {:.2f}", to_string(profile.stage), spearman_rho(profile.value, drops)), {}};
    for (std::size_t l = 0; l < drops.size(); ++l) series.points.emplace_back(ranks[l], costs[l]);
    plots.back().series.push_back(std::move(series));
  }
  return plots;
}

std::vector<double> mean_kept(const Verification& verification, std::size_t candidate) {
  std::vector<double> sums;
  double samples = 0;
  for (const VerifyRow& row : verification.rows) {
    if (row.candidate != candidate || row.kept.empty()) continue;
    sums.resize(row.kept.size());
    std::ranges::transform(sums, row.kept, sums.begin(), std::plus<>());
    ++samples;
  }
  for (double& sum : sums) sum /= samples;
  return sums;
}

std::vector<Plot> budget_plots(const ResultTable& results, const Verification& verification) {
  const std::vector<int> layers = prunable_layers(results.model);
  std::map<double, Plot> plots;
  for (std::size_t c = 0; c < verification.candidates.size(); ++c) {
    const Candidate& candidate = verification.candidates[c];
    const std::vector<double> kept = mean_kept(verification, c);
    Series series{candidate_label(results, verification, c), {}, candidate.role == kBound};
    for (std::size_t l = 0; l < kept.size(); ++l) series.points.emplace_back(layers[l], kept[l]);
    if (series.points.empty()) continue;
    const auto [plot, _] = plots.try_emplace(
        candidate.choice.keep,
        Plot{fmt::format("budgets at keep {}", candidate.choice.keep), "layer", "kept share of the layer", {}});
    plot->second.series.push_back(std::move(series));
  }
  std::vector<Plot> found;
  for (auto& [_, plot] : plots) found.push_back(std::move(plot));
  return found;
}

std::vector<Plot> outcome_plots(const ResultTable& results, const Verification& verification) {
  std::vector<Plot> plots{outcome_plot(results, verification, "KL to the full cache, nats", &VerifyRow::kl),
                          outcome_plot(results, verification, "task score", &VerifyRow::score)};
  std::erase_if(plots, [](const Plot& plot) { return plot.series.empty(); });
  return plots;
}

std::string candidate_label(const ResultTable& results, const Verification& verification, std::size_t candidate) {
  const PolicyIndex own = verification.candidates[candidate].choice.policy;
  const auto differs = [&](auto part) {
    return std::ranges::any_of(verification.candidates,
                               [&](const Candidate& it) { return part(it.choice.policy) != part(own); });
  };
  std::string label = layer_label(results, own.layer_allocator);
  if (differs([](const PolicyIndex& p) { return p.ranker; })) label += " / " + ranker_label(results, own.ranker);
  if (differs([](const PolicyIndex& p) { return p.head_allocator; }))
    label += " / " + head_label(results, own.head_allocator);
  return label;
}

}  // namespace depthkv
