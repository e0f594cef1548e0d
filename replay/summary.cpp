// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "depthkv/report.h"
#include "depthkv/version.h"
#include "replay/csv.h"
#include "replay/labels.h"

namespace depthkv {
namespace {

using Json = nlohmann::ordered_json;

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json interval(Interval x) { return Json::array({number(x.low), number(x.high)}); }

Json policy_json(const ResultTable& results, PolicyIndex index) {
  const Ranker& ranker = results.policies.rankers[index.ranker];
  return {{"scorer", ranker.scorer.name},
          {"scorer_params", ranker.scorer.params},
          {"group", ranker.scorer.group},
          {"structure", ranker.structure.name},
          {"structure_params", ranker.structure.params},
          {"protect", {{"first", ranker.protect.first}, {"last", ranker.protect.last}}},
          {"layer_allocator", results.policies.layer_allocators[index.layer_allocator].name},
          {"layer_params", results.policies.layer_allocators[index.layer_allocator].params},
          {"head_allocator", results.policies.head_allocators[index.head_allocator].name},
          {"head_params", results.policies.head_allocators[index.head_allocator].params}};
}

Json summary_entry(const ResultTable& results, const PolicySummary& summary) {
  Json entry = policy_json(results, results.policy(summary.policy));
  entry["bound"] = results.is_bound(results.policy(summary.policy));
  entry["mean"] = number(summary.mean);
  entry["samples"] = summary.samples;
  entry["versus_uniform"] = number(summary.versus_uniform);
  entry["versus_uniform_interval"] = interval(summary.versus_uniform_interval);
  return entry;
}

Json estimate(const Estimate& estimate) {
  return {{"value", number(estimate.value)}, {"interval", interval(estimate.interval)}};
}

Json agreement_json(const Agreement& agreement) {
  return {{"metric", to_string(agreement.metric)},
          {"task", agreement.task},
          {"keep", agreement.keep == 0 ? Json("all") : Json(agreement.keep)},
          {"policies", agreement.policies},
          {"samples", agreement.samples},
          {"top", agreement.top},
          {"kendall_tau", estimate(agreement.kendall)},
          {"spearman_rho", estimate(agreement.spearman)},
          {"top_regret", estimate(agreement.regret)},
          {"top_holds_best", agreement.top_holds_best},
          {"halves_kendall_tau", number(agreement.halves_kendall)}};
}

// The same scorer and protection, split evenly: what every allocation is compared with.
std::size_t uniform_twin(const ResultTable& results, std::size_t policy) {
  const PolicyIndex index = results.policy(policy);
  for (std::size_t p = 0; p < results.policies.size(); ++p) {
    const PolicyIndex other = results.policy(p);
    if (other.ranker == index.ranker && results.is_even(other)) return p;
  }
  return policy;
}

}  // namespace

std::vector<PolicySummary> summarise(const ResultTable& results, std::size_t keep, Metric metric) {
  std::vector<PolicySummary> found;
  for (std::size_t p = 0; p < results.policies.size(); ++p) {
    const std::vector<double> values = results.values(p, keep, metric);
    if (values.empty()) continue;
    const std::size_t twin = uniform_twin(results, p);
    std::vector<double> differences;
    for (const SampleResult& sample : results.samples) {
      const double difference = results.value(sample, p, keep, metric) - results.value(sample, twin, keep, metric);
      if (!std::isnan(difference)) differences.push_back(difference);
    }
    found.push_back(
        {p, keep, mean(values), values.size(), mean(differences), bootstrap_mean(differences, kReportSeed)});
  }
  std::stable_sort(found.begin(), found.end(), [&](const PolicySummary& a, const PolicySummary& b) {
    return higher_is_better(metric) ? a.mean > b.mean : a.mean < b.mean;
  });
  return found;
}

void write_summary_json(const ResultTable& results, const std::optional<Verification>& verification,
                        const std::filesystem::path& file) {
  Json root;
  root["build"] = kBuild;
  root["plan"] = results.plan_hash;
  root["model"] = {{"name", results.model.name}, {"fingerprint", results.model.fingerprint}};
  root["cut"] = to_string(results.plan.cut);
  root["device"] = to_string(results.plan.device);
  root["samples"] = Json::array();
  for (const SampleResult& sample : results.samples) {
    root["samples"].push_back({{"id", sample.id},
                               {"tokens", sample.tokens},
                               {"judged_rows", sample.judged_rows},
                               {"skipped", sample.skipped}});
  }
  for (const Metric metric : kShownMetrics) {
    for (std::size_t k = 0; k < results.plan.keep.size(); ++k) {
      Json ranking = Json::array();
      for (const PolicySummary& summary : summarise(results, k, metric))
        ranking.push_back(summary_entry(results, summary));
      root["replay"][std::string(to_string(metric))].push_back({{"keep", results.plan.keep[k]}, {"policies", ranking}});
    }
  }
  if (verification) {
    root["verify"] = Json::array();
    for (std::size_t c = 0; c < verification->candidates.size(); ++c) {
      const Candidate& candidate = verification->candidates[c];
      Json entry = policy_json(results, candidate.choice.policy);
      entry["keep"] = candidate.choice.keep;
      entry["role"] = candidate.role;
      entry["predicted"] = number(candidate.predicted);
      for (const auto& [name, value] : candidate_means(*verification, c)) entry[name] = number(value);
      root["verify"].push_back(entry);
    }
    root["agreement"] = Json::array();
    for (const Agreement& agreement : verification->agreement) root["agreement"].push_back(agreement_json(agreement));
  }
  write_file(file, root.dump(1) + "\n");
}

}  // namespace depthkv
