// SPDX-License-Identifier: Apache-2.0
// What a study concludes from what was measured.
#include "depthkv/study.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>
#include <set>

#include "depthkv/error.h"
#include "replay/layer_drops.h"

namespace depthkv {
namespace {

constexpr std::uint64_t kDropSeed = 0x64726f7073;  // unlike any that a plan would give for the metrics' draws
constexpr int kResamples = 2000;

LayerDrops drawn(const LayerDrops& drops, std::uint64_t& state) {
  LayerDrops found;
  for (const std::size_t s : resample(drops.size(), state)) found.push_back(drops[s]);
  return found;
}

// Draw d of the metric beside the drops of a resample of the samples.
MetricCorrelation correlated(const MetricProfile& profile, const std::string& task, Drop drop,
                             const LayerDrops& drops) {
  std::vector<double> spearman, kendall;
  std::uint64_t state = kDropSeed;
  for (const std::vector<double>& metric : profile.draws) {
    const std::vector<double> means = mean_drops(drawn(drops, state));
    spearman.push_back(spearman_rho(metric, means));
    kendall.push_back(kendall_tau_b(metric, means));
  }
  const std::vector<double> means = mean_drops(drops);
  return {profile.metric,
          profile.stage,
          task,
          drop,
          {spearman_rho(profile.value, means), percentile_interval(spearman)},
          {kendall_tau_b(profile.value, means), percentile_interval(kendall)}};
}

// One number per sample of a policy and of uniform allocation, where both have one.
struct Pairs {
  std::vector<double> own;
  std::vector<double> even;

  Estimate difference() const {
    std::vector<double> differences;
    std::ranges::transform(own, even, std::back_inserter(differences), std::minus<>());
    return {mean(differences), bootstrap_mean(differences, kReportSeed)};
  }
  Estimate ratio() const {
    const auto over = [&](const std::vector<std::size_t>& samples) {
      double a = 0;
      double b = 0;
      for (const std::size_t s : samples) {
        a += own[s];
        b += even[s];
      }
      return b > 0 ? a / b : kUnmeasured;
    };
    std::vector<std::size_t> all(own.size());
    std::iota(all.begin(), all.end(), std::size_t{0});
    std::vector<double> draws;
    std::uint64_t state = kReportSeed;
    for (int i = 0; i < kResamples; ++i) draws.push_back(over(resample(own.size(), state)));
    return {over(all), percentile_interval(draws)};
  }
};

// RowsBySample of a candidate by sample.
using RowsBySample = std::map<std::size_t, const VerifyRow*>;

Pairs pairs_of(const RowsBySample& own, const RowsBySample& even, const std::function<bool(std::size_t)>& wanted,
               double VerifyRow::*value) {
  Pairs pairs;
  for (const auto& [sample, row] : own) {
    const auto other = even.find(sample);
    if (other == even.end() || !wanted(sample)) continue;
    if (std::isnan(row->*value) || std::isnan(other->second->*value)) continue;
    pairs.own.push_back(row->*value);
    pairs.even.push_back(other->second->*value);
  }
  return pairs;
}

std::optional<std::size_t> uniform_beside(const ResultTable& results, const Verification& verification,
                                          std::size_t candidate) {
  const PolicyChoice& own = verification.candidates[candidate].choice;
  for (std::size_t c = 0; c < verification.candidates.size(); ++c) {
    const PolicyChoice& other = verification.candidates[c].choice;
    if (other.keep == own.keep && other.policy.ranker == own.policy.ranker &&
        other.policy.head_allocator == own.policy.head_allocator &&
        results.policies.layer_allocators[other.policy.layer_allocator].name == "uniform")
      return c;
  }
  return std::nullopt;
}

}  // namespace

SplitSamples split_samples(std::span<const std::string> tasks, std::int64_t learn) {
  SplitSamples split;
  std::map<std::string, std::int64_t> seen;
  for (std::size_t s = 0; s < tasks.size(); ++s) {
    const bool learns = learn == 0 || seen[tasks[s]]++ < learn;
    if (learns) split.learn.push_back(s);
    if (!learns || learn == 0) split.judge.push_back(s);
  }
  if (split.learn.empty() || split.judge.empty())
    throw InputError(
        fmt::format("of {} samples of {} tasks, the first {} of each are to learn from and the others to judge by, "
                    "which leaves one side without any; record more samples per task, or change study.learn",
                    tasks.size(), seen.size(), learn));
  return split;
}

SplitSet split_set(const TraceSet& traces, std::int64_t learn) {
  if (learn == 0) return {traces, traces};
  std::vector<std::string> tasks;
  for (const auto& file : traces.files) tasks.push_back(Trace::open(file).sample().task);
  SplitSet split{{traces.directory, {}}, {traces.directory, {}}};
  const SplitSamples samples = split_samples(tasks, learn);
  for (const std::size_t s : samples.learn) split.learn.files.push_back(traces.files[s]);
  for (const std::size_t s : samples.judge) split.judge.files.push_back(traces.files[s]);
  return split;
}

std::vector<MetricCorrelation> correlate(const std::vector<MetricProfile>& profiles,
                                         const std::vector<AblationRow>& rows) {
  std::vector<MetricCorrelation> found;
  for (const Drop drop : kDrops) {
    std::map<std::string, LayerDrops> tasks = drops_by_task(rows, drop);
    if (tasks.size() > 1) tasks.emplace(kAllTasks, pooled(tasks));
    for (const auto& [task, drops] : tasks)
      for (const MetricProfile& profile : profiles) found.push_back(correlated(profile, task, drop, drops));
  }
  return found;
}

void add_representations(Importance& importance, const std::vector<MetricProfile>& profiles) {
  for (const MetricProfile& profile : profiles)
    for (std::size_t l = 0; l < importance.layers.size(); ++l)
      importance.layers[l].representations[profile.metric][static_cast<std::size_t>(profile.stage)] = profile.value[l];
}

std::vector<VersusUniform> compare_to_uniform(const ResultTable& results, const Verification& verification) {
  std::vector<RowsBySample> rows(verification.candidates.size());
  std::set<std::string> tasks;
  for (const VerifyRow& row : verification.rows) {
    rows[row.candidate][row.sample] = &row;
    tasks.insert(results.samples[row.sample].task);
  }
  std::vector<std::string> names{kAllTasks};
  if (tasks.size() > 1) names.insert(names.end(), tasks.begin(), tasks.end());
  std::vector<VersusUniform> found;
  for (std::size_t c = 0; c < rows.size(); ++c) {
    const auto even = uniform_beside(results, verification, c);
    if (!even || *even == c) continue;
    for (const std::string& task : names) {
      const auto wanted = [&](std::size_t sample) { return task == kAllTasks || results.samples[sample].task == task; };
      const Pairs kl = pairs_of(rows[c], rows[*even], wanted, &VerifyRow::kl);
      const Pairs score = pairs_of(rows[c], rows[*even], wanted, &VerifyRow::score);
      found.push_back({c, task, kl.own.size(), mean(kl.own), kl.difference(), kl.ratio(), score.own.size(),
                       mean(score.own), score.difference()});
    }
  }
  return found;
}

}  // namespace depthkv
