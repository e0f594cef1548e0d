// SPDX-License-Identifier: Apache-2.0
// The tables that the command line prints.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "depthkv/report.h"
#include "replay/labels.h"

namespace depthkv {
namespace {

std::string shown(double value, const char* format = "{:.4f}") {
  return std::isnan(value) ? "-" : fmt::format(fmt::runtime(format), value);
}

// Columns aligned: text to the left, everything after the first `left` columns to the right.
std::string aligned(const std::vector<std::vector<std::string>>& rows, std::size_t left) {
  std::vector<std::size_t> width(rows.front().size());
  for (const auto& row : rows) {
    for (std::size_t c = 0; c < row.size(); ++c) width[c] = std::max(width[c], row[c].size());
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line = " ";
    for (std::size_t c = 0; c < row.size(); ++c) {
      line += c < left ? fmt::format(" {:<{}} ", row[c], width[c]) : fmt::format(" {:>{}} ", row[c], width[c]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

// The best of the policies, then whatever a reader needs to judge them by: random, the best uniform split, the oracle.
std::vector<std::size_t> shown_rows(const ResultTable& results, const std::vector<PolicySummary>& ranking, std::size_t rows) {
  std::vector<std::size_t> chosen;
  const auto bound = [&](std::size_t i) { return results.is_bound(results.policy(ranking[i].policy)); };
  const auto uniform = [&](std::size_t i) {
    const PolicyIndex index = results.policy(ranking[i].policy);
    return results.policies.layer_allocators[index.layer_allocator].name == "uniform" &&
           results.policies.head_allocators[index.head_allocator].name == "uniform";
  };
  const auto scorer = [&](std::size_t i) { return results.policies.rankers[results.policy(ranking[i].policy).ranker].scorer.name; };
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

std::string results_table(const ResultTable& results, Metric metric, std::size_t rows_per_keep) {
  std::string text = fmt::format("{} ({} is better), cut {}, {} policies, mean over samples\n", to_string(metric),
                                 higher_is_better(metric) ? "higher" : "lower", to_string(results.plan.cut), results.policies.size());
  for (std::size_t k = 0; k < results.plan.keep.size(); ++k) {
    const std::vector<PolicySummary> ranking = summarise(results, k, metric);
    if (ranking.empty()) continue;
    std::vector<std::vector<std::string>> rows{
        {"rank", "scorer", "layers", "heads", std::string(to_string(metric)), "vs uniform", "95 % interval", ""}};
    for (const std::size_t i : shown_rows(results, ranking, rows_per_keep)) {
      const PolicySummary& it = ranking[i];
      const PolicyIndex index = results.policy(it.policy);
      rows.push_back({fmt::format("{}", i + 1), ranker_label(results, index.ranker), layer_label(results, index.layer_allocator),
                      head_label(results, index.head_allocator), shown(it.mean), shown(it.versus_uniform, "{:+.4f}"),
                      fmt::format("[{}, {}]", shown(it.versus_uniform_interval.low, "{:+.4f}"), shown(it.versus_uniform_interval.high, "{:+.4f}")),
                      results.is_bound(index) ? "bound" : ""});
    }
    text += fmt::format("\nkeep {} ({} samples)\n{}", results.plan.keep[k], ranking.front().samples, aligned(rows, 4));
  }
  return text;
}

std::string verify_table(const ResultTable& results, const Verification& verification) {
  std::vector<std::vector<std::string>> rows{
      {"role", "scorer", "layers", "heads", "keep", "predicted", "KL", "top-1", "NLL", "NLL full", "score", "score full"}};
  for (std::size_t c = 0; c < verification.candidates.size(); ++c) {
    const Candidate& candidate = verification.candidates[c];
    std::vector<std::string> row{candidate.role, ranker_label(results, candidate.choice.policy.ranker),
                                 layer_label(results, candidate.choice.policy.layer_allocator),
                                 head_label(results, candidate.choice.policy.head_allocator),
                                 fmt::format("{}", candidate.choice.keep), shown(candidate.predicted)};
    for (const auto& [name, value] : candidate_means(verification, c)) row.push_back(shown(value, name == "kl" ? "{:.5f}" : "{:.3f}"));
    rows.push_back(row);
  }
  std::string text = fmt::format("end to end, predicted by {}\n{}\n", to_string(verification.plan.rank_by), aligned(rows, 4));
  for (const Agreement& agreement : verification.agreement) {
    text += fmt::format(
        "agreement of replay with the model, {} policies at keep {}: Kendall tau {} [{}, {}], Spearman {}, regret of the top {}\n",
        agreement.policies, agreement.keep == 0 ? "all" : fmt::format("{}", agreement.keep), shown(agreement.kendall, "{:.3f}"),
        shown(agreement.kendall_interval.low, "{:.3f}"), shown(agreement.kendall_interval.high, "{:.3f}"),
        shown(agreement.spearman, "{:.3f}"), shown(agreement.regret, "{:.3f}"));
  }
  return text;
}

}  // namespace depthkv
