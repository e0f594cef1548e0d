// SPDX-License-Identifier: Apache-2.0
// What a study leaves behind: tables, drawings, a page of both.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "depthkv/report.h"
#include "depthkv/version.h"
#include "replay/csv.h"
#include "replay/html.h"
#include "replay/labels.h"
#include "replay/layer_drops.h"
#include "replay/study_plots.h"

namespace depthkv {
namespace {

std::vector<std::string> cells(const Estimate& it) {
  return {csv_number(it.value), csv_number(it.interval.low), csv_number(it.interval.high)};
}

std::vector<std::string> joined(std::initializer_list<std::vector<std::string>> parts) {
  std::vector<std::string> all;
  for (const auto& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

std::string shown_estimate(const Estimate& it, const char* format) {
  return shown(it.value, format) + " " + shown_interval(it.interval, format);
}

void write_representations(const Study& study, const std::filesystem::path& file) {
  CsvWriter csv({"metric", "stage", "layer", "value", "low", "high"});
  for (const MetricProfile& profile : study.profiles)
    for (std::size_t l = 0; l < profile.value.size(); ++l)
      csv.row(joined({{profile.metric, std::string(to_string(profile.stage)),
                       fmt::format("{}", study.ablation.importance.layers[l].layer)},
                      cells({profile.value[l], profile.interval[l]})}));
  write_file(file, csv.text());
}

void write_correlations(const std::vector<MetricCorrelation>& correlations, const std::filesystem::path& file) {
  CsvWriter csv({"metric", "stage", "task", "drop", "spearman", "spearman_low", "spearman_high", "kendall",
                 "kendall_low", "kendall_high"});
  for (const MetricCorrelation& it : correlations)
    csv.row(joined({{it.metric, std::string(to_string(it.stage)), it.task, std::string(to_string(it.drop))},
                    cells(it.spearman),
                    cells(it.kendall)}));
  write_file(file, csv.text());
}

void write_comparisons(const ResultTable& results, const Verification& verification,
                       const std::filesystem::path& file) {
  CsvWriter csv(joined({{"keep", "role"},
                        policy_columns(),
                        {"task", "samples", "kl", "kl_difference", "kl_difference_low", "kl_difference_high",
                         "kl_ratio", "kl_ratio_low", "kl_ratio_high", "scored", "score", "score_difference",
                         "score_difference_low", "score_difference_high"}}));
  for (const VersusUniform& it : compare_to_uniform(results, verification)) {
    const Candidate& candidate = verification.candidates[it.candidate];
    csv.row(joined({{csv_number(candidate.choice.keep), candidate.role},
                    policy_fields(results, candidate.choice.policy),
                    {it.task, fmt::format("{}", it.samples), csv_number(it.kl)},
                    cells(it.kl_difference),
                    cells(it.kl_ratio),
                    {fmt::format("{}", it.scored), csv_number(it.score)},
                    cells(it.score_difference)}));
  }
  write_file(file, csv.text());
}

void write_budgets(const ResultTable& results, const Verification& verification, const std::filesystem::path& file) {
  CsvWriter csv(joined({{"keep", "role"}, policy_columns(), {"layer", "kept"}}));
  const std::vector<int> layers = prunable_layers(results.model);
  for (std::size_t c = 0; c < verification.candidates.size(); ++c) {
    const Candidate& candidate = verification.candidates[c];
    const std::vector<double> kept = mean_kept(verification, c);
    for (std::size_t l = 0; l < kept.size(); ++l)
      csv.row(joined({{csv_number(candidate.choice.keep), candidate.role},
                      policy_fields(results, candidate.choice.policy),
                      {fmt::format("{}", layers[l]), csv_number(kept[l])}}));
  }
  write_file(file, csv.text());
}

Table comparison_rows(const ResultTable& results, const Verification& verification, bool tasks) {
  Table table{"allocations less uniform's under the same scorer, paired by sample, with 95 % intervals",
              {{"layers", "role", "task", "keep", "samples", "KL", "KL less uniform's", "KL over uniform's", "scored",
                "score", "score less uniform's"}},
              3};
  for (const VersusUniform& it : compare_to_uniform(results, verification)) {
    if (!tasks && it.task != kAllTasks) continue;
    const Candidate& candidate = verification.candidates[it.candidate];
    table.rows.push_back({candidate_label(results, verification, it.candidate), candidate.role, it.task,
                          fmt::format("{}", candidate.choice.keep), fmt::format("{}", it.samples), shown(it.kl),
                          shown_estimate(it.kl_difference, "{:+.4f}"), shown_estimate(it.kl_ratio, "{:.2f}"),
                          fmt::format("{}", it.scored), shown(it.score, "{:.3f}"),
                          shown_estimate(it.score_difference, "{:+.3f}")});
  }
  return table;
}

// Of all samples, or of each task.
Table correlation_rows(const std::vector<MetricCorrelation>& correlations, bool tasks) {
  Table table{"metrics of hidden states beside what pruning a layer does, over layers, with 95 % intervals",
              {{"metric", "stage", "task", "drop", "Spearman", "Kendall"}},
              4};
  const bool several = std::ranges::any_of(correlations, [](const auto& it) { return it.task == kAllTasks; });
  for (const MetricCorrelation& it : correlations) {
    if (several && (it.task != kAllTasks) != tasks) continue;
    table.rows.push_back({it.metric, std::string(to_string(it.stage)), it.task, std::string(to_string(it.drop)),
                          shown_estimate(it.spearman, "{:.2f}"), shown_estimate(it.kendall, "{:.2f}")});
  }
  return table;
}

Table test_rows(const std::vector<TaskLayers>& tests) {
  Table table{"do layers matter differently? permutation test, corrected for the number of tasks (Holm)",
              {{"task", "of", "samples", "p", "p, Holm", "eta squared", "Kendall W", "samples needed"}},
              2};
  for (const TaskLayers& it : tests)
    table.rows.push_back({it.task, std::string(to_string(it.drop)), fmt::format("{}", it.test.samples),
                          shown(it.test.p), shown(it.p_holm), shown(it.test.eta_squared, "{:.3f}"),
                          shown(it.test.kendall_w, "{:.3f}"),
                          it.samples_needed == 0 ? "over 1024" : fmt::format("{}", it.samples_needed)});
  return table;
}

// Drawings of one subject: a file of its own, and the same for the page.
class Drawings {
 public:
  explicit Drawings(std::filesystem::path folder) : folder_(std::move(folder)) {}

  // The first `open` ones in sight, the others on demand.
  std::string add(const std::string& name, const std::vector<Plot>& plots, std::size_t open = 1) const {
    std::vector<std::string> drawings;
    std::string shown_first, others;
    for (const Plot& plot : plots) {
      drawings.push_back(draw(plot));
      (drawings.size() <= open ? shown_first : others) += drawings.back();
    }
    if (drawings.empty()) return "";
    write_file(folder_ / (name + ".svg"), svg_page(name, drawings));
    return shown_first + (others.empty() ? "" : html_details("more", others));
  }

 private:
  std::filesystem::path folder_;
};

}  // namespace

void write_study_csv(const Study& study, const std::filesystem::path& folder) {
  write_representations(study, folder / "representations.csv");
  write_correlations(study.correlations, folder / "correlations.csv");
}

void write_study_report(const Study& study, const ResultTable& results, const Verification& verification,
                        const std::filesystem::path& folder) {
  write_comparisons(results, verification, folder / "comparisons.csv");
  write_budgets(results, verification, folder / "budgets.csv");
  const Drawings drawings(folder);
  std::string body = "<h2>Which allocation is best?</h2>\n" +
                     drawings.add("outcome", outcome_plots(results, verification), 2) +
                     html_table(comparison_rows(results, verification, false)) +
                     html_details("per task", html_table(comparison_rows(results, verification, true))) +
                     drawings.add("budgets", budget_plots(results, verification)) + "<h2>What replay predicts</h2>\n" +
                     drawings.add("predicted", {allocator_plot(results, verification.plan.rank_by)}) +
                     "<h2>How much does each layer matter?</h2>\n";
  for (const Drop drop : kDrops)
    body += drawings.add(fmt::format("ablation-{}", to_string(drop)), ablation_plots(study, drop));
  body += html_table(test_rows(study.tests)) + "<h2>Do hidden states foretell it?</h2>\n" +
          drawings.add("metrics", metric_plots(study)) + html_table(correlation_rows(study.correlations, false)) +
          html_details("per task", html_table(correlation_rows(study.correlations, true)));
  const Importance& importance = study.ablation.importance;
  write_file(folder / "study.html",
             html_page("DepthKV study", "DepthKV study of " + importance.model,
                       fmt::format("layers measured on {} samples at keep {} ({}), allocations judged on {} others; cut "
                                   "{}, depthkv {}, plan {}",
                                   importance.samples, fmt::join(importance.keep, ", "), importance.policy,
                                   results.samples.size(), importance.cut, kBuild, results.plan_hash),
                       body));
}

std::string comparisons_table(const ResultTable& results, const Verification& verification) {
  return aligned(comparison_rows(results, verification, false));
}

std::string correlations_table(const std::vector<MetricCorrelation>& correlations) {
  return aligned(correlation_rows(correlations, false));
}

std::string layer_tests_table(const std::vector<TaskLayers>& tests) { return aligned(test_rows(tests)); }

}  // namespace depthkv
