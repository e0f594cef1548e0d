// SPDX-License-Identifier: Apache-2.0
// Which policies the model has to check: the best that replay predicts, and a control sample over the whole ranking, so
// that the agreement between the two is not measured on near-ties at the top only.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "depthkv/error.h"
#include "depthkv/verify.h"

namespace depthkv {
namespace {

std::size_t keep_index(const ResultTable& results, double keep) {
  const std::vector<double>& keeps = results.plan.keep;
  const auto at = std::find(keeps.begin(), keeps.end(), keep);
  if (at == keeps.end()) {
    throw InputError(
        fmt::format("verify.keep has {}, which was not replayed; replay.keep has {}", keep, fmt::join(keeps, ", ")));
  }
  return static_cast<std::size_t>(at - keeps.begin());
}

double as_loss(Metric metric, double value) { return higher_is_better(metric) ? 1.0 - value : value; }

// On every sample that has a result at all.
bool runs_everywhere(const ResultTable& results, std::size_t policy, std::size_t keep) {
  return std::ranges::all_of(results.samples, [&](const SampleResult& sample) {
    return !sample.skipped.empty() || results.why_skipped(sample, policy, keep).empty();
  });
}

// Every policy that is not a bound and runs everywhere, best predicted first (ties: lower index).
std::vector<Candidate> predicted_ranking(const ResultTable& results, std::size_t keep, Metric metric) {
  std::vector<Candidate> ranking;
  for (std::size_t p = 0; p < results.policies.size(); ++p) {
    if (results.is_bound(results.policy(p))) continue;
    const std::vector<double> values = results.values(p, keep, metric);
    if (values.empty() || !runs_everywhere(results, p, keep)) continue;
    const double average = mean(values);
    ranking.push_back({{results.policy(p), results.plan.keep[keep]}, p, keep, "", as_loss(metric, average)});
  }
  std::stable_sort(ranking.begin(), ranking.end(),
                   [](const Candidate& a, const Candidate& b) { return a.predicted < b.predicted; });
  return ranking;
}

// The oracle's split of layers, heads alike, under a ranker.
void add_bound(const ResultTable& results, const VerifyPlan& plan, std::size_t ranker, std::size_t keep,
               std::vector<Candidate>& chosen) {
  for (std::size_t p = 0; p < results.policies.size(); ++p) {
    const PolicyIndex index = results.policy(p);
    const std::vector<double> values = results.values(p, keep, plan.rank_by);
    if (index.ranker == ranker && results.policies.layer_allocators[index.layer_allocator].name == "oracle" &&
        results.policies.head_allocators[index.head_allocator].name == "uniform" && !values.empty() &&
        runs_everywhere(results, p, keep))
      chosen.push_back({{index, results.plan.keep[keep]}, p, keep, kBound, as_loss(plan.rank_by, mean(values))});
  }
}

void take(std::vector<Candidate>& chosen, std::vector<Candidate>& ranking, std::size_t at, const char* role) {
  chosen.push_back(ranking[at]);
  chosen.back().role = role;
  ranking.erase(ranking.begin() + static_cast<std::ptrdiff_t>(at));
}

// Returns the first one's index.
std::size_t take_top(const ResultTable& results, const VerifyPlan& plan, std::vector<Candidate>& ranking,
                     std::vector<Candidate>& chosen) {
  const std::size_t first = chosen.size();
  const auto wanted = [&](const Candidate& candidate) {
    const std::string& scorer = results.policies.rankers[candidate.choice.policy.ranker].scorer.name;
    return plan.scorers.empty() || std::ranges::find(plan.scorers, scorer) != plan.scorers.end();
  };
  for (std::int64_t i = 0; i < plan.top; ++i) {
    const auto next = std::ranges::find_if(ranking, wanted);
    if (next == ranking.end()) break;
    take(chosen, ranking, static_cast<std::size_t>(next - ranking.begin()), "top");
  }
  if (chosen.size() == first)
    throw InputError(
        fmt::format("verify.scorers has {}, and no policy under them can be verified", fmt::join(plan.scorers, ", ")));
  return first;
}

}  // namespace

std::vector<Candidate> choose_candidates(const ResultTable& results, const VerifyPlan& plan) {
  std::vector<Candidate> chosen;
  std::uint64_t state = plan.seed;
  for (const double keep : plan.keep) {
    std::vector<Candidate> ranking = predicted_ranking(results, keep_index(results, keep), plan.rank_by);
    if (ranking.empty())
      throw Error(fmt::format("no policy has {} at keep {}: nothing to verify", to_string(plan.rank_by), keep));
    const std::size_t best = take_top(results, plan, ranking, chosen);
    // Uniform allocation under the best ranker is what every other allocation has to beat.
    const std::size_t best_ranker = chosen[best].choice.policy.ranker;
    const auto uniform = std::find_if(ranking.begin(), ranking.end(), [&](const Candidate& c) {
      return c.choice.policy.ranker == best_ranker && results.is_even(c.choice.policy);
    });
    if (uniform != ranking.end()) take(chosen, ranking, static_cast<std::size_t>(uniform - ranking.begin()), "uniform");
    const auto strata = std::min<std::size_t>(static_cast<std::size_t>(plan.controls), ranking.size());
    std::vector<std::size_t> drawn;
    for (std::size_t s = 0; s < strata; ++s) {
      const std::size_t begin = s * ranking.size() / strata;
      const std::size_t end = (s + 1) * ranking.size() / strata;
      drawn.push_back(begin + resample(end - begin, state).front());
    }
    std::for_each(drawn.rbegin(), drawn.rend(), [&](std::size_t at) { take(chosen, ranking, at, "control"); });
    if (plan.bounds) add_bound(results, plan, best_ranker, keep_index(results, keep), chosen);
  }
  return chosen;
}

}  // namespace depthkv
