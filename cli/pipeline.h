// SPDX-License-Identifier: Apache-2.0
// The stages of a run, as the commands share them. A run folder holds plan.yaml (resolved), traces/ (unless recorded
// elsewhere), results.csv, verify.csv, summary.json and report.html; what importance writes stands by itself.
#pragma once
#include <filesystem>
#include <memory>
#include <optional>

#include "cli/dump.h"
#include "cli/plan.h"
#include "depthkv/model.h"
#include "depthkv/progress.h"
#include "depthkv/report.h"
#include "depthkv/study.h"

namespace depthkv {

enum class ExitCode { fine = 0, failed = 1, wrong_input = 2, rows_skipped = 3, interrupted = 130 };

class Pipeline {
 public:
  Pipeline(Plan plan, std::filesystem::path folder);

  // Says what the run would do and what it would cost, without doing it.
  // Throws InputError where a study would, before anything is recorded for it.
  void check_study();
  void describe();
  void describe_verify();
  void describe_importance();

  void trace() { trace_into(trace_folder()); }
  void trace_into(const std::filesystem::path& traces);
  void replay(const DumpFiles& dump = {});
  void verify();
  // importance.json, importance.csv and layer_tests.csv, with a study representations.csv and correlations.csv, too;
  // tables to stdout. Layer allocators of the plan that name no file of their own read importance.json from then on.
  void measure_importance();
  void report();  // tables to stdout; summary.json and report.html, with a study its page

  // Takes results (and the verification, if there is one) from an earlier run's files.
  void load_results();

  ExitCode outcome() const;

 private:
  Model& model();
  std::filesystem::path trace_folder() const;
  // With a study, what layers are measured on, and everything else; without, all on both sides.
  SplitSet traces() const;
  // Under which layers are measured.
  ReplayPlan ablation_plan() const;
  void measure_representations(Study& study);
  // Where curves are kept; empty: nowhere.
  std::filesystem::path cache_folder() const;
  void save_plan();

  Plan plan_;
  std::filesystem::path folder_;
  Registry registry_;
  Progress progress_;
  std::unique_ptr<Model> model_;
  std::optional<ResultTable> results_;
  std::optional<Verification> verification_;
  std::optional<Study> study_;  // measured by this run
};

// Opens the model of a plan. Throws InputError if it names none.
std::unique_ptr<Model> open_model(const std::filesystem::path& file, int threads, int batch = kEngineBatch);

// Throws InputError unless `folder` exists or can be made, and a file can be written into it.
void prepare_folder(const std::filesystem::path& folder);

}  // namespace depthkv
