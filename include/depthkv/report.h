// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "depthkv/layer_tests.h"
#include "depthkv/replay.h"
#include "depthkv/verify.h"

namespace depthkv {

// Mean over samples, with a paired 95 % bootstrap interval of
// its difference to uniform allocation under the same ranker.
struct PolicySummary {
  std::size_t policy = 0;
  std::size_t keep = 0;
  double mean = 0;
  std::size_t samples = 0;
  double versus_uniform = 0;
  Interval versus_uniform_interval;
};

// Every policy at one keep, best first; policies without a value are left out.
std::vector<PolicySummary> summarise(const ResultTable& results, std::size_t keep, Metric metric);

// One file each, written aside and renamed. Column meanings: docs/results.md.
void write_results_csv(const ResultTable& results, const std::filesystem::path& file);
void write_verify_csv(const ResultTable& results, const Verification& verification, const std::filesystem::path& file);
// What the two writers wrote, by column name; `results` must be the table that the verification belongs to. Throws
// Error with file and line on anything else.
ResultTable read_results_csv(const ReplayPlan& resolved, const Registry& registry, const std::filesystem::path& file);
Verification read_verify_csv(const ResultTable& results, const VerifyPlan& plan, const std::filesystem::path& file);
void write_summary_json(const ResultTable& results, const std::optional<Verification>& verification,
                        const std::filesystem::path& file);
void write_report_html(const ResultTable& results, const std::optional<Verification>& verification,
                       const std::string& plan_yaml, const std::filesystem::path& file);

// The tables that the command line prints.
std::string results_table(const ResultTable& results, Metric metric, std::size_t rows_per_keep);
std::string importance_table(const Importance& importance);
std::string layer_tests_table(const std::vector<TaskLayers>& tests);
std::string verify_table(const ResultTable& results, const Verification& verification);

}  // namespace depthkv
