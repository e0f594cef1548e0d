// SPDX-License-Identifier: Apache-2.0
#include "replay/separation.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>
#include <vector>

#include "depthkv/stats.h"

namespace depthkv {
namespace {

using BySample = std::map<std::size_t, double>;  // sample to KL

double mean_of(const BySample& kl) {
  std::vector<double> values;
  for (const auto& [_, value] : kl) values.push_back(value);
  return mean(values);
}

bool is_worse(const BySample& kl, const BySample& best, std::uint64_t seed) {
  std::vector<double> differences;
  for (const auto& [sample, value] : kl)
    if (const auto other = best.find(sample); other != best.end()) differences.push_back(value - other->second);
  return differences.size() >= kFewestSamples && bootstrap_mean(differences, seed).low > 0;
}

}  // namespace

bool is_separate(const Verification& verification, std::size_t count) {
  std::vector<BySample> kl(verification.candidates.size());
  for (const VerifyRow& row : verification.rows)
    if (!std::isnan(row.kl)) kl[row.candidate][row.sample] = row.kl;
  std::map<std::size_t, std::vector<std::pair<double, BySample>>> at_keep;  // with its mean
  for (std::size_t c = 0; c < kl.size(); ++c) {
    if (verification.candidates[c].role == kBound) continue;
    const double average = mean_of(kl[c]);
    at_keep[verification.candidates[c].keep_index].emplace_back(average, std::move(kl[c]));
  }
  for (auto& [_, policies] : at_keep) {
    std::ranges::stable_sort(policies, {}, &std::pair<double, BySample>::first);
    for (std::size_t i = 0; i < std::min(count, policies.size()); ++i)
      for (std::size_t j = count; j < policies.size(); ++j)
        if (!is_worse(policies[j].second, policies[i].second, verification.plan.seed)) return false;
  }
  return true;
}

}  // namespace depthkv
