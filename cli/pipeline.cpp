// SPDX-License-Identifier: Apache-2.0
#include "cli/pipeline.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "cli/console.h"
#include "cli/forecast.h"
#include "cli/plan_study.h"
#include "depthkv/error.h"
#include "replay/csv.h"
#include "replay/model_work.h"
#include "replay/sample_store.h"
#include "tracer/jobs.h"

namespace depthkv {
namespace {

constexpr std::size_t kRowsPerKeep = 5;  // of the terminal's table
// Where finished samples wait, in the run folder.
constexpr const char* kFinished = ".verify";
constexpr const char* kMeasured = ".importance";

std::string size_text(double bytes) {
  for (const char* unit : {"B", "KiB", "MiB", "GiB"}) {
    if (bytes < 1024) return fmt::format("{:.1f} {}", bytes, unit);
    bytes /= 1024;
  }
  return fmt::format("{:.1f} TiB", bytes);
}

void describe_trace(Model& model, const TracePlan& plan, const Progress& progress) {
  const TraceEstimate most = estimate_traces(model, plan, progress);
  fmt::print("trace   {} samples ({} truncated), at most {} tokens, at most {} of traces (codec {})\n", most.samples,
             most.truncated, most.tokens, size_text(most.bytes), plan.codec);
  fmt::print("        predicted: {} in all, {} for {} ({} tokens); measured: {:.0f} tokens/s on {} tokens\n",
             duration_text(most.seconds), duration_text(most.slowest_seconds), most.slowest, most.slowest_tokens,
             most.tokens_per_second, most.measured_tokens);
  if (most.waiting_bytes > 0)
    fmt::print("        hidden states wait in the output folder until their sample is finished: at most {}\n",
               size_text(most.waiting_bytes));
}

// `bound`: "at most " where it isn't known yet which branches there will be.
void print_work(const char* stage, const ModelWork& work, const char* bound = "") {
  fmt::print(
      "{:<11} {} samples, {}{} branches each (the full cache among them), of which {} decode greedily at once\n"
      "{:<11} {} prompt tokens prefilled, at most {} decoded behind them; the cache takes at most {}\n",
      stage, work.samples, bound, work.branches, work.together, "", work.prompt_tokens, work.branch_tokens,
      size_text(static_cast<double>(work.cache_bytes)));
}

void print_memory(const std::filesystem::path& model, std::int64_t cache_bytes) {
  std::error_code unknown;
  const auto weights = static_cast<double>(std::filesystem::file_size(model, unknown));
  const auto cache = static_cast<double>(cache_bytes);
  if (!unknown)
    fmt::print("memory  model and cache take at most {}: {} and {}\n", size_text(weights + cache), size_text(weights),
               size_text(cache));
}

}  // namespace

std::unique_ptr<Model> open_model(const std::filesystem::path& file, int threads, int batch) {
  if (file.empty())
    throw InputError("no model given; pass --model FILE.gguf, set DEPTHKV_MODEL, or write `model:` in the plan");
  return open_llama_model({.model = file, .threads = threads, .batch = batch});
}

void prepare_folder(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  const std::filesystem::path probe = folder / ".depthkv-probe";
  const bool writable = !error && std::ofstream(probe).put('x').good();
  std::filesystem::remove(probe, error);
  if (!writable)
    throw InputError(
        fmt::format("{}: not a folder that can be written to; give another one with --out", folder.string()));
}

Pipeline::Pipeline(Plan plan, std::filesystem::path folder)
    : plan_(std::move(plan)),
      folder_(std::move(folder)),
      registry_(builtin_policies()),
      progress_(console_progress()) {}

Model& Pipeline::model() {
  if (!model_) model_ = open_model(plan_.model, plan_.threads, plan_.batch);
  return *model_;
}

std::filesystem::path Pipeline::trace_folder() const {
  return plan_.traces.empty() ? folder_ / "traces" : plan_.traces;
}

SplitSet Pipeline::traces() const {
  return split_set(open_trace_set(trace_folder()), plan_.study ? plan_.study->learn : 0);
}

std::filesystem::path Pipeline::cache_folder() const {
  if (plan_.cache == "none") return {};
  if (plan_.cache != "auto") return plan_.cache;
  const std::filesystem::path folder = trace_folder() / ".curves";
  std::error_code failure;
  std::filesystem::create_directories(folder, failure);
  // A set that can only be read is replayed without a cache.
  return access(folder.c_str(), W_OK) == 0 ? folder : std::filesystem::path();
}

void Pipeline::check_study() {
  if (!plan_.study) return;
  const ReplayPlan plan = ablation_plan();
  expect_ablation(plan, make_policies(plan, registry_));
  if (!plan_.trace) return;
  std::vector<std::string> tasks;
  for (const TaskSample& sample : read_samples(*plan_.trace)) tasks.push_back(sample.task);
  split_samples(tasks, plan_.study->learn);
}

void Pipeline::describe() {
  check_study();
  Forecast foreseen;
  if (plan_.trace) {
    read_samples(*plan_.trace);  // a mistake in a task file shows before the model is loaded
    describe_trace(model(), *plan_.trace, progress_);
    foreseen = forecast(model(), *plan_.trace);
  } else {
    const TraceSet traces = open_trace_set(trace_folder());
    fmt::print("trace   nothing: {} samples in {}\n", traces.files.size(), trace_folder().string());
    foreseen = forecast(traces);
  }
  std::int64_t cache_bytes = foreseen.recording_bytes;
  if (plan_.study) {
    const ViewPlan& views = plan_.study->views;
    const ModelWork measuring = take_study(foreseen, *plan_.study, plan_.replay.cut);
    print_work("study", measuring, "at most ");
    fmt::print(
        "{:<11} {} samples of each task to learn from; at most {} documents of {} tokens in {} noised views each\n", "",
        plan_.study->learn, views.documents, views.tokens, views.views);
    cache_bytes = std::max(cache_bytes, measuring.cache_bytes);
  }
  const Policies policies = make_policies(with_bounds(with_study_file(plan_.replay, {})), registry_);
  fmt::print(
      "replay  {} policies ({} rankers x {} layer allocators x {} head allocators) at {} budgets: {} results per "
      "sample; {} rankings "
      "of every layer and head per sample\n",
      policies.size(), policies.rankers.size(), policies.layer_allocators.size(), policies.head_allocators.size(),
      plan_.replay.keep.size(), policies.size() * plan_.replay.keep.size(), policies.rankers.size());
  ModelWork work;
  if (plan_.verify) {
    work = verification_work(foreseen.model, foreseen.samples, plan_.replay.cut, most_branches(policies, *plan_.verify),
                             *plan_.verify);
    print_work("verify", work, "at most ");
  } else {
    fmt::print("verify  nothing\n");
  }
  if (plan_.trace || plan_.verify) print_memory(plan_.model, std::max(cache_bytes, work.cache_bytes));
}

void Pipeline::describe_verify() { print_work("verify", verification_work(traces().judge, *results_, *plan_.verify)); }

void Pipeline::describe_importance() {
  make_policies(ablation_plan(), registry_);  // a mistake in the plan shows
  print_work("importance", importance_work(traces().learn, ablation_plan(), plan_.study->max_new));
}

void Pipeline::save_plan() { write_file(folder_ / "plan.yaml", to_yaml(plan_, registry_)); }

void Pipeline::trace_into(const std::filesystem::path& traces) {
  if (!plan_.trace) return;
  read_samples(*plan_.trace);  // a mistake in a task file shows before the model is loaded
  prepare_folder(traces);
  const TraceSummary done = record_traces(model(), *plan_.trace, traces, progress_);
  fmt::print("traces: {} ({} recorded, {} there already, {} truncated)\n", traces.string(), done.recorded, done.resumed,
             done.truncated);
}

void Pipeline::replay(const DumpFiles& dump) {
  prepare_folder(folder_);
  plan_.replay = with_bounds(plan_.replay);
  plan_.replay.cache = cache_folder();
  const TraceSet judged = traces().judge;
  Dump looking_on(dump, judged, plan_.replay.cut);
  results_ = depthkv::replay(judged, plan_.replay, registry_, progress_, looking_on.watch());
  looking_on.finish();
  results_->plan_hash = plan_hash(plan_.replay, registry_);
  // An older verification belongs to an older plan.
  std::filesystem::remove(folder_ / "verify.csv");
  verification_.reset();
  save_plan();
  write_results_csv(*results_, folder_ / "results.csv");
}

void Pipeline::verify() {
  if (!plan_.verify) return;
  results_->plan.cache = cache_folder();
  verification_ = depthkv::verify(model(), traces().judge, *results_, *plan_.verify, progress_, folder_ / kFinished);
  save_plan();
  write_verify_csv(*results_, *verification_, folder_ / "verify.csv");
  SampleStore(folder_ / kFinished).clear();
}

void Pipeline::load_results() {
  results_ = read_results_csv(plan_.replay, registry_, folder_ / "results.csv");
  const std::string expected = plan_hash(plan_.replay, registry_);
  if (results_->plan_hash != expected)
    throw InputError(fmt::format(
        "{}: made by plan {}, and plan.yaml beside it is plan {}: a later replay was interrupted, or a file "
        "that the plan names has changed; replay again",
        (folder_ / "results.csv").string(), results_->plan_hash, expected));
  if (plan_.verify && std::filesystem::exists(folder_ / "verify.csv")) {
    verification_ = read_verify_csv(*results_, *plan_.verify, folder_ / "verify.csv");
  }
}

// Nothing that a study measures is known yet.
ReplayPlan Pipeline::ablation_plan() const {
  ReplayPlan plan = with_study_file(plan_.replay, {});
  plan.keep = plan_.study->keep;
  return plan;
}

void Pipeline::measure_importance() {
  prepare_folder(folder_);
  plan_.replay.cache = cache_folder();
  const ReplayPlan plan = ablation_plan();
  make_policies(plan, registry_);  // a mistake in the plan shows before the model is loaded
  Study study;
  study.ablation = depthkv::measure_importance(model(), traces().learn, plan, registry_, progress_, folder_ / kMeasured,
                                               plan_.study->max_new);
  study.tests = survey_layers(study.ablation.rows);
  if (plan_.study->views.documents > 0) measure_representations(study);
  write_ablation_csv(study.ablation.rows, folder_ / "importance.csv");
  write_layer_tests_csv(study.tests, folder_ / "layer_tests.csv");
  write_importance(study.ablation.importance, folder_ / "importance.json");
  if (!plan_.verify) SampleStore(folder_ / kMeasured).clear();  // else an interrupted run would measure again
  fmt::print("{}\n{}\n", importance_table(study.ablation.importance), layer_tests_table(study.tests));
  if (!study.correlations.empty()) fmt::print("{}\n", correlations_table(study.correlations));
  fmt::print("importance: {}\n", (folder_ / "importance.json").string());
  plan_.replay = with_study_file(plan_.replay, folder_ / "importance.json");
  study_ = std::move(study);
}

void Pipeline::measure_representations(Study& study) {
  ViewPlan views = plan_.study->views;
  views.threads = plan_.threads;
  const TraceSet learnt = traces().learn;
  const ViewSet recorded = record_views(model(), learnt, views, folder_ / "views", progress_);
  study.profiles = depthkv::measure_representations(recorded, learnt, views, progress_);
  study.correlations = correlate(study.profiles, study.ablation.rows);
  add_representations(study.ablation.importance, study.profiles);
  write_study_csv(study, folder_);
}

void Pipeline::report() {
  write_summary_json(*results_, verification_, folder_ / "summary.json");
  write_report_html(*results_, verification_, to_yaml(plan_, registry_), folder_ / "report.html");
  const Metric metric = plan_.verify ? plan_.verify->rank_by : Metric::output_error;
  fmt::print("\n{}", results_table(*results_, metric, kRowsPerKeep));
  fmt::print("\nreport: {}\n", (folder_ / "report.html").string());
  if (study_ && verification_) {
    write_study_report(*study_, *results_, *verification_, folder_);
    SampleStore(folder_ / kMeasured).clear();
    fmt::print("study: {}\n", (folder_ / "study.html").string());
  }
  // Last, so that it is what stays in sight.
  if (verification_) fmt::print("\n{}", verify_table(*results_, *verification_));
  if (study_ && verification_) fmt::print("\n{}", comparisons_table(*results_, *verification_));
  if (results_->any_skipped()) fmt::print("\nsome rows were skipped; their status in results.csv says why\n");
}

ExitCode Pipeline::outcome() const {
  return results_ && results_->any_skipped() ? ExitCode::rows_skipped : ExitCode::fine;
}

}  // namespace depthkv
