// SPDX-License-Identifier: Apache-2.0
// The DepthKV study (arXiv:2604.24647) of a model: how much each layer matters, what foretells it, and what dividing a
// budget by it gives.
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "depthkv/layer_tests.h"
#include "depthkv/representations.h"
#include "depthkv/verify.h"

namespace depthkv {

struct StudyPlan {
  std::int64_t learn = 2;     // first samples of each task, on which layers are measured; all others judge
  std::vector<double> keep;   // at which a layer is pruned while all others are whole
  std::int64_t max_new = 32;  // most tokens generated per pruned layer for task scores, 0: none
  ViewPlan views;
};

// Samples, whose tasks are given in the order of their files, by StudyPlan::learn; with 0, all of them are on both
// sides. Throws InputError where one side would be empty.
struct SplitSamples {
  std::vector<std::size_t> learn;
  std::vector<std::size_t> judge;
};
SplitSamples split_samples(std::span<const std::string> tasks, std::int64_t learn);

struct SplitSet {
  TraceSet learn;
  TraceSet judge;
};
SplitSet split_set(const TraceSet& traces, std::int64_t learn);

// How a metric of hidden states goes with what pruning layers does, over layers; intervals by drawing samples and
// documents anew.
struct MetricCorrelation {
  std::string metric;
  Stage stage = Stage::pre;
  std::string task;  // "all", or one of the ablation's
  Drop drop = Drop::kl;
  Estimate spearman;
  Estimate kendall;
};
std::vector<MetricCorrelation> correlate(const std::vector<MetricProfile>& profiles,
                                         const std::vector<AblationRow>& rows);

// Adds the metrics to the layers, for allocators to read.
void add_representations(Importance& importance, const std::vector<MetricProfile>& profiles);

// What a policy did beside uniform allocation under the same ranker, head allocator and keep, paired by sample.
struct VersusUniform {
  std::size_t candidate = 0;
  std::string task;         // "all", or one of the samples'
  std::size_t samples = 0;  // with a KL
  double kl = 0;            // mean, nats
  Estimate kl_difference;   // policy less uniform
  Estimate kl_ratio;        // mean over uniform's mean
  std::size_t scored = 0;   // samples with a task score
  double score = kUnmeasured;
  Estimate score_difference;
};
std::vector<VersusUniform> compare_to_uniform(const ResultTable& results, const Verification& verification);

// All of a study.
struct Study {
  Ablation ablation;
  std::vector<TaskLayers> tests;
  std::vector<MetricProfile> profiles;
  std::vector<MetricCorrelation> correlations;
};

// representations.csv and correlations.csv.
void write_study_csv(const Study& study, const std::filesystem::path& folder);
// comparisons.csv, budgets.csv and study.html, whose plots stand in the folder as SVG files, too.
void write_study_report(const Study& study, const ResultTable& results, const Verification& verification,
                        const std::filesystem::path& folder);

// For the terminal.
std::string comparisons_table(const ResultTable& results, const Verification& verification);
std::string correlations_table(const std::vector<MetricCorrelation>& correlations);

}  // namespace depthkv
