// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "depthkv/report.h"
#include "depthkv/tasks.h"
#include "replay/labels.h"
#include "replay/tables.h"

namespace depthkv {

std::string shown(double value, const char* format) {
  return std::isnan(value) ? "-" : fmt::format(fmt::runtime(format), value);
}

std::string shown_interval(Interval x, const char* format) {
  return fmt::format("[{}, {}]", shown(x.low, format), shown(x.high, format));
}

std::string aligned(const Table& table) {
  std::vector<std::size_t> width(table.rows.front().size());
  for (const auto& row : table.rows) {
    for (std::size_t c = 0; c < row.size(); ++c) width[c] = std::max(width[c], row[c].size());
  }
  std::string text = table.title + "\n";
  for (const auto& row : table.rows) {
    std::string line = " ";
    for (std::size_t c = 0; c < row.size(); ++c) {
      line += c < table.text_columns ? fmt::format(" {:<{}} ", row[c], width[c])
                                     : fmt::format(" {:>{}} ", row[c], width[c]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

namespace {

// The best of the policies, then whatever a reader needs to judge them by: random, the best uniform split, the oracle.
std::vector<std::size_t> shown_rows(const ResultTable& results, const std::vector<PolicySummary>& ranking,
                                    std::size_t rows) {
  std::vector<std::size_t> chosen;
  const auto bound = [&](std::size_t i) { return results.is_bound(results.policy(ranking[i].policy)); };
  const auto uniform = [&](std::size_t i) { return results.is_even(results.policy(ranking[i].policy)); };
  const auto scorer = [&](std::size_t i) {
    return results.policies.rankers[results.policy(ranking[i].policy).ranker].scorer.name;
  };
  const auto add_first = [&](auto wanted) {
    for (std::size_t i = 0; i < ranking.size(); ++i) {
      if (!wanted(i)) continue;
      if (std::find(chosen.begin(), chosen.end(), i) == chosen.end()) chosen.push_back(i);
      return;
    }
  };
  for (std::size_t i = 0; i < ranking.size() && chosen.size() < rows; ++i) {
    if (!bound(i)) chosen.push_back(i);
  }
  add_first([&](std::size_t i) { return bound(i); });
  add_first([&](std::size_t i) { return uniform(i) && !bound(i); });
  add_first([&](std::size_t i) { return uniform(i) && scorer(i) == "random"; });
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

}  // namespace

std::vector<Table> results_tables(const ResultTable& results, Metric metric, std::size_t rows_per_keep) {
  std::vector<Table> tables;
  for (std::size_t k = 0; k < results.plan.keep.size(); ++k) {
    const std::vector<PolicySummary> ranking = summarise(results, k, metric);
    if (ranking.empty()) continue;
    Table table{
        fmt::format("keep {} ({} samples)", results.plan.keep[k], ranking.front().samples),
        {{"rank", "scorer", "layers", "heads", std::string(to_string(metric)), "vs uniform", "95 % interval", ""}},
        4};
    for (const std::size_t i : shown_rows(results, ranking, rows_per_keep)) {
      const PolicySummary& it = ranking[i];
      const PolicyIndex index = results.policy(it.policy);
      table.rows.push_back(
          {fmt::format("{}", i + 1), ranker_label(results, index.ranker), layer_label(results, index.layer_allocator),
           head_label(results, index.head_allocator), shown(it.mean), shown(it.versus_uniform, "{:+.4f}"),
           shown_interval(it.versus_uniform_interval, "{:+.4f}"), results.is_bound(index) ? "bound" : ""});
    }
    tables.push_back(std::move(table));
  }
  return tables;
}

Table verify_rows(const ResultTable& results, const Verification& verification) {
  Table table{fmt::format("end to end, predicted by {}", to_string(verification.plan.rank_by)),
              {{"role", "scorer", "layers", "heads", "keep", "predicted", "KL", "top-1", "NLL", "NLL full", "score",
                "score full"}},
              4};
  for (std::size_t c = 0; c < verification.candidates.size(); ++c) {
    const Candidate& candidate = verification.candidates[c];
    const PolicyIndex index = candidate.choice.policy;
    std::vector<std::string> row{candidate.role,
                                 ranker_label(results, index.ranker),
                                 layer_label(results, index.layer_allocator),
                                 head_label(results, index.head_allocator),
                                 fmt::format("{}", candidate.choice.keep),
                                 shown(candidate.predicted)};
    for (const auto& [name, value] : candidate_means(verification, c))
      row.push_back(shown(value, name == "kl" ? "{:.5f}" : "{:.3f}"));
    table.rows.push_back(row);
  }
  return table;
}

Table agreement_rows(const Verification& verification, bool whole) {
  const std::size_t top = verification.agreement.empty() ? 0 : verification.agreement.front().top;
  Table table{"agreement of replay with the model: its order of policies beside that of their mean KL",
              {{"metric", "task", "keep", "policies", "samples", "Kendall tau", "95 % interval", "Spearman",
                fmt::format("regret of top {}", top), "95 % interval", "best in top", "tau of halves"}},
              3};
  const bool one_keep = verification.plan.keep.size() == 1;
  for (const Agreement& it : verification.agreement) {
    const bool pooled = it.task == kAllTasks && (one_keep || it.keep == 0);
    if (!whole && !pooled && it.metric != verification.plan.rank_by) continue;
    const auto three = [](double value) { return shown(value, "{:.3f}"); };
    const auto range = [](const Estimate& estimate) { return shown_interval(estimate.interval, "{:.3f}"); };
    table.rows.push_back({std::string(to_string(it.metric)), it.task, it.keep == 0 ? "all" : fmt::format("{}", it.keep),
                          fmt::format("{}", it.policies), fmt::format("{}", it.samples), three(it.kendall.value),
                          range(it.kendall), three(it.spearman.value), three(it.regret.value), range(it.regret),
                          three(it.top_holds_best), three(it.halves_kendall)});
  }
  return table;
}

std::string results_heading(const ResultTable& results, Metric metric) {
  return fmt::format("{} ({} is better), cut {}, {} policies, mean over samples", to_string(metric),
                     higher_is_better(metric) ? "higher" : "lower", to_string(results.plan.cut),
                     results.policies.size());
}

std::string results_table(const ResultTable& results, Metric metric, std::size_t rows_per_keep) {
  std::string text = results_heading(results, metric) + "\n";
  for (const Table& table : results_tables(results, metric, rows_per_keep)) text += "\n" + aligned(table);
  return text;
}

std::string importance_table(const Importance& importance) {
  Table table{fmt::format("one layer pruned at a time: cut {}, keep {}, {} samples, {}", importance.cut,
                          fmt::join(importance.keep, ", "), importance.samples, importance.policy),
              {{"layer", "KL", "95 % interval", "noise", "output_error", "sensitivity"}},
              0};
  for (const LayerImportance& layer : importance.layers)
    table.rows.push_back({fmt::format("{}", layer.layer), shown(layer.kl, "{:.5f}"),
                          shown_interval(layer.kl_interval, "{:.5f}"), shown(layer.noise, "{:.5f}"),
                          shown(layer.output_error), shown(layer.sensitivity)});
  return aligned(table);
}

std::string verify_table(const ResultTable& results, const Verification& verification) {
  return fmt::format("{}\n{}", aligned(verify_rows(results, verification)),
                     aligned(agreement_rows(verification, false)));
}

}  // namespace depthkv
