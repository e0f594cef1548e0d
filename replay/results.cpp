// SPDX-License-Identifier: Apache-2.0
// results.csv and verify.csv: long form, every row names everything that made it.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "depthkv/error.h"
#include "depthkv/report.h"
#include "depthkv/version.h"
#include "replay/agreement.h"
#include "replay/csv.h"
#include "replay/labels.h"

namespace depthkv {
namespace {

constexpr std::string_view kSkipped = "skipped: ";

std::vector<std::string> columns(std::vector<std::string> before, const std::vector<std::string>& after) {
  before.insert(before.end(), policy_columns().begin(), policy_columns().end());
  before.insert(before.end(), after.begin(), after.end());
  return before;
}

// The key that finds a policy again from its columns.
std::string policy_key(const std::vector<std::string>& fields) { return fmt::format("{}", fmt::join(fields, "\x1f")); }

std::string policy_key(const CsvTable& table, std::size_t row) {
  std::vector<std::string> fields;
  for (const std::string& column : policy_columns()) fields.push_back(table.at(row, column));
  return policy_key(fields);
}

std::map<std::string, std::size_t> policies_by_key(const ResultTable& results) {
  std::map<std::string, std::size_t> found;
  for (std::size_t p = 0; p < results.policies.size(); ++p)
    found[policy_key(policy_fields(results, results.policy(p)))] = p;
  return found;
}

std::size_t find_policy(const std::map<std::string, std::size_t>& policies, const CsvTable& table, std::size_t row) {
  const auto found = policies.find(policy_key(table, row));
  if (found == policies.end()) {
    throw Error(
        fmt::format("{}: a policy that the run's plan.yaml doesn't name (scorer {}); they belong to different runs",
                    table.where(row), table.at(row, "scorer")));
  }
  return found->second;
}

std::size_t find_keep(const ResultTable& results, const CsvTable& table, std::size_t row) {
  const double keep = csv_number(table.at(row, "keep"));
  const auto at = std::find(results.plan.keep.begin(), results.plan.keep.end(), keep);
  if (at == results.plan.keep.end())
    throw Error(fmt::format("{}: keep {} is not in the run's plan.yaml", table.where(row), keep));
  return static_cast<std::size_t>(at - results.plan.keep.begin());
}

SampleResult empty_sample(const ResultTable& results, const CsvTable& table, std::size_t row) {
  SampleResult sample;
  sample.id = table.at(row, "sample");
  sample.task = table.at(row, "task");
  sample.tokens = static_cast<std::int64_t>(csv_number(table.at(row, "tokens")));
  sample.judged_rows = static_cast<std::int64_t>(csv_number(table.at(row, "judged_rows")));
  sample.ranker_skipped.resize(results.policies.rankers.size());
  sample.layer_skipped.resize(results.policies.layer_allocators.size());
  sample.head_skipped.resize(results.policies.head_allocators.size());
  sample.kept.resize(results.policies.size() * results.plan.keep.size());
  sample.entries.resize(results.plan.keep.size());
  sample.values.assign(results.policies.size() * results.plan.keep.size() * kMetrics.size(),
                       std::numeric_limits<double>::quiet_NaN());
  return sample;
}

// Policies that were skipped at every keep for the same reason.
std::map<std::size_t, std::string> skipped_throughout(const ResultTable& results, const SampleResult& sample) {
  std::map<std::size_t, std::string> skips;
  for (std::size_t p = 0; p < results.policies.size(); ++p) {
    const std::string why = results.why_skipped(sample, p, 0);
    bool same = !why.empty();
    for (std::size_t k = 1; k < results.plan.keep.size(); ++k) same = same && results.why_skipped(sample, p, k) == why;
    if (same) skips[p] = why;
  }
  return skips;
}

// Finds whose fault it is that policies were skipped: a reason that all policies of one choice share is that choice's.
// A policy whose reason is known already says nothing about its other choices. What is no choice's fault stays with the
// policy and its budgets.
void blame(const ResultTable& results, SampleResult& sample) {
  const std::map<std::size_t, std::string> skips = skipped_throughout(results, sample);
  if (skips.empty()) return;
  const std::string& first = skips.begin()->second;
  if (skips.size() == results.policies.size() &&
      std::ranges::all_of(skips, [&](const auto& skip) { return skip.second == first; })) {
    sample.skipped = first;
    sample.budget_skipped.clear();
    return;
  }
  const auto settle = [&](std::vector<std::string>& reasons, std::size_t PolicyIndex::*axis) {
    for (std::size_t choice = 0; choice < reasons.size(); ++choice) {
      std::size_t of_choice = 0;
      std::map<std::string, std::size_t> counts;
      for (std::size_t p = 0; p < results.policies.size(); ++p) {
        if (results.policy(p).*axis != choice || !sample.why_skipped(results.policy(p)).empty()) continue;
        ++of_choice;
        if (const auto why = skips.find(p); why != skips.end()) ++counts[why->second];
      }
      for (const auto& [why, count] : counts)
        if (count == of_choice) reasons[choice] = why;
    }
  };
  settle(sample.ranker_skipped, &PolicyIndex::ranker);
  settle(sample.layer_skipped, &PolicyIndex::layer_allocator);
  settle(sample.head_skipped, &PolicyIndex::head_allocator);
  std::erase_if(sample.budget_skipped, [&](const auto& skip) {
    return !sample.why_skipped(results.policy(skip.first / results.plan.keep.size())).empty();
  });
}

Metric parse_metric(const CsvTable& table, std::size_t row) {
  if (const auto metric = metric_named(table.at(row, "metric"))) return *metric;
  throw Error(fmt::format("{}: unknown metric \"{}\"", table.where(row), table.at(row, "metric")));
}

}  // namespace

void write_results_csv(const ResultTable& results, const std::filesystem::path& file) {
  CsvWriter csv(columns({"sample", "task", "cut", "tokens", "judged_rows"},
                        {"keep", "entries", "kept", "metric", "value", "status", "device", "model", "model_fingerprint",
                         "plan", "build"}));
  for (const SampleResult& sample : results.samples) {
    const std::vector<std::string> lead{sample.id, sample.task, std::string(to_string(results.plan.cut)),
                                        fmt::format("{}", sample.tokens), fmt::format("{}", sample.judged_rows)};
    for (std::size_t p = 0; p < results.policies.size(); ++p) {
      const PolicyIndex index = results.policy(p);
      std::vector<std::string> head = lead;
      const std::vector<std::string> policy = policy_fields(results, index);
      head.insert(head.end(), policy.begin(), policy.end());
      for (std::size_t k = 0; k < results.plan.keep.size(); ++k) {
        const std::string why = results.why_skipped(sample, p, k);
        const std::string status = why.empty() ? "ok" : std::string(kSkipped) + why;
        for (const Metric metric : kMetrics) {
          if (metric == Metric::evidence && !sample.has_evidence) continue;
          const std::string entries = fmt::format("{}", sample.entries[k]);
          std::vector<std::string> fields = head;
          fields.insert(fields.end(), {csv_number(results.plan.keep[k]), entries,
                                       status == "ok" ? fmt::format("{}", results.kept(sample, p, k)) : "",
                                       std::string(to_string(metric)), csv_number(results.value(sample, p, k, metric)),
                                       status, std::string(to_string(results.plan.device)), results.model.name,
                                       results.model.fingerprint, results.plan_hash, kBuild});
          csv.row(fields);
        }
      }
    }
  }
  write_file(file, csv.text());
}

ResultTable read_results_csv(const ReplayPlan& resolved, const Registry& registry, const std::filesystem::path& file) {
  const CsvTable table = CsvTable::read(file);
  ResultTable results;
  results.plan = resolved;
  results.policies = make_policies(resolved, registry);
  const std::map<std::string, std::size_t> policies = policies_by_key(results);
  for (std::size_t row = 0; row < table.rows(); ++row) {
    if (results.samples.empty() || results.samples.back().id != table.at(row, "sample")) {
      results.samples.push_back(empty_sample(results, table, row));
    }
    results.plan_hash = table.at(row, "plan");
    results.model.name = table.at(row, "model");
    results.model.fingerprint = table.at(row, "model_fingerprint");
    SampleResult& sample = results.samples.back();
    const std::size_t policy = find_policy(policies, table, row);
    const std::size_t keep = find_keep(results, table, row);
    const Metric metric = parse_metric(table, row);
    sample.entries[keep] = static_cast<std::int64_t>(csv_number(table.at(row, "entries")));
    sample.has_evidence = sample.has_evidence || metric == Metric::evidence;
    const std::string& status = table.at(row, "status");
    if (status == "ok") {
      sample.kept[policy * resolved.keep.size() + keep] = static_cast<std::int64_t>(csv_number(table.at(row, "kept")));
    } else {
      sample.budget_skipped[policy * resolved.keep.size() + keep] = status.substr(kSkipped.size());
    }
    sample.values[(policy * resolved.keep.size() + keep) * kMetrics.size() + static_cast<std::size_t>(metric)] =
        csv_number(table.at(row, "value"));
  }
  for (SampleResult& sample : results.samples) blame(results, sample);
  return results;
}

void write_verify_csv(const ResultTable& results, const Verification& verification, const std::filesystem::path& file) {
  CsvWriter csv(columns({"sample", "task", "cut", "role"},
                        {"keep", "entries", "rank_by", "predicted", "scored_tokens", "kl", "top1", "nll", "nll_full",
                         "score", "score_full", "length_ratio", "output", "plan", "build"}));
  for (const VerifyRow& row : verification.rows) {
    const Candidate& candidate = verification.candidates[row.candidate];
    const SampleResult& sample = results.samples[row.sample];
    std::vector<std::string> fields{sample.id, sample.task, std::string(to_string(results.plan.cut)), candidate.role};
    const std::vector<std::string> policy = policy_fields(results, candidate.choice.policy);
    fields.insert(fields.end(), policy.begin(), policy.end());
    fields.insert(fields.end(),
                  {csv_number(candidate.choice.keep), fmt::format("{}", sample.entries[candidate.keep_index]),
                   std::string(to_string(verification.plan.rank_by)), csv_number(candidate.predicted),
                   fmt::format("{}", row.scored_tokens), csv_number(row.kl), csv_number(row.top1), csv_number(row.nll),
                   csv_number(row.nll_full), csv_number(row.score), csv_number(row.score_full),
                   csv_number(row.length_ratio), row.output, results.plan_hash, kBuild});
    csv.row(fields);
  }
  write_file(file, csv.text());
}

Verification read_verify_csv(const ResultTable& results, const VerifyPlan& plan, const std::filesystem::path& file) {
  const CsvTable table = CsvTable::read(file);
  const std::map<std::string, std::size_t> policies = policies_by_key(results);
  Verification verification;
  verification.plan = plan;
  for (std::size_t row = 0; row < table.rows(); ++row) {
    const std::size_t policy = find_policy(policies, table, row);
    const std::size_t keep = find_keep(results, table, row);
    auto candidate = std::find_if(verification.candidates.begin(), verification.candidates.end(),
                                  [&](const Candidate& c) { return c.policy == policy && c.keep_index == keep; });
    if (candidate == verification.candidates.end()) {
      verification.candidates.push_back({{results.policy(policy), results.plan.keep[keep]},
                                         policy,
                                         keep,
                                         table.at(row, "role"),
                                         csv_number(table.at(row, "predicted"))});
      candidate = verification.candidates.end() - 1;
    }
    const auto sample = std::find_if(results.samples.begin(), results.samples.end(),
                                     [&](const SampleResult& s) { return s.id == table.at(row, "sample"); });
    if (sample == results.samples.end())
      throw Error(fmt::format("{}: a sample that results.csv doesn't have", table.where(row)));
    const auto number = [&](const char* column) { return csv_number(table.at(row, column)); };
    verification.rows.push_back({static_cast<std::size_t>(candidate - verification.candidates.begin()),
                                 static_cast<std::size_t>(sample - results.samples.begin()),
                                 static_cast<std::int64_t>(number("scored_tokens")), number("kl"), number("top1"),
                                 number("nll"), number("nll_full"), number("score"), number("score_full"),
                                 number("length_ratio"), table.at(row, "output")});
  }
  verification.agreement = measure_agreement(results, verification);
  return verification;
}

}  // namespace depthkv
