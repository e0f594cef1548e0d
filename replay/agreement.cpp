// SPDX-License-Identifier: Apache-2.0
#include "replay/agreement.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

namespace depthkv {
namespace {

constexpr int kResamples = 1000;

// Predicted loss and KL of each candidate, as means over a multiset of samples.
struct Paired {
  std::vector<double> predicted;
  std::vector<double> kl;
};

class SampleMeans {
 public:
  SampleMeans(const ResultTable& results, const Verification& verification, std::vector<std::size_t> candidates)
      : results_(results), verification_(verification), candidates_(std::move(candidates)) {
    std::set<std::size_t> seen;
    for (const VerifyRow& row : verification.rows) seen.insert(row.sample);
    samples_.assign(seen.begin(), seen.end());
    kl_.assign(candidates_.size(), std::vector<double>(samples_.size(), std::numeric_limits<double>::quiet_NaN()));
    for (const VerifyRow& row : verification.rows) {
      const auto c = std::find(candidates_.begin(), candidates_.end(), row.candidate);
      if (c == candidates_.end()) continue;
      const auto s = std::lower_bound(samples_.begin(), samples_.end(), row.sample);
      kl_[static_cast<std::size_t>(c - candidates_.begin())][static_cast<std::size_t>(s - samples_.begin())] = row.kl;
    }
  }

  std::size_t samples() const { return samples_.size(); }

  Paired over(const std::vector<std::size_t>& drawn) const {
    Paired paired;
    for (std::size_t c = 0; c < candidates_.size(); ++c) {
      std::vector<double> predicted;
      std::vector<double> kl;
      for (const std::size_t s : drawn) {
        const double p = loss(candidates_[c], samples_[s]);
        if (!std::isnan(p)) predicted.push_back(p);
        if (!std::isnan(kl_[c][s])) kl.push_back(kl_[c][s]);
      }
      paired.predicted.push_back(mean(predicted));
      paired.kl.push_back(mean(kl));
    }
    return paired;
  }

 private:
  double loss(std::size_t candidate, std::size_t sample) const {
    const Candidate& c = verification_.candidates[candidate];
    const Metric metric = verification_.plan.rank_by;
    const double value = results_.value(results_.samples[sample], c.policy, c.keep_index, metric);
    return higher_is_better(metric) ? 1.0 - value : value;
  }

  const ResultTable& results_;
  const Verification& verification_;
  std::vector<std::size_t> candidates_;
  std::vector<std::size_t> samples_;
  std::vector<std::vector<double>> kl_;  // [candidate][sample]
};

// How much is lost by trusting replay's top: 0 when the best of it is the best of all, 1 when it is the worst.
double top_regret(const Verification& verification, const std::vector<std::size_t>& candidates,
                  const std::vector<double>& kl) {
  double best_top = std::numeric_limits<double>::infinity();
  for (std::size_t c = 0; c < candidates.size(); ++c) {
    if (verification.candidates[candidates[c]].role == "top") best_top = std::min(best_top, kl[c]);
  }
  const auto [best, worst] = std::minmax_element(kl.begin(), kl.end());
  return *worst > *best ? (best_top - *best) / (*worst - *best) : 0.0;
}

Agreement agreement_of(const ResultTable& results, const Verification& verification, double keep,
                       const std::vector<std::size_t>& candidates) {
  const SampleMeans means(results, verification, candidates);
  std::vector<std::size_t> all(means.samples());
  for (std::size_t s = 0; s < all.size(); ++s) all[s] = s;
  const Paired paired = means.over(all);

  Agreement agreement;
  agreement.keep = keep;
  agreement.policies = candidates.size();
  agreement.kendall = kendall_tau_b(paired.predicted, paired.kl);
  agreement.spearman = spearman_rho(paired.predicted, paired.kl);
  agreement.regret = top_regret(verification, candidates, paired.kl);
  std::vector<double> taus;
  std::uint64_t state = verification.plan.seed;
  for (int i = 0; i < kResamples; ++i) {
    const Paired drawn = means.over(resample(means.samples(), state));
    taus.push_back(kendall_tau_b(drawn.predicted, drawn.kl));
  }
  agreement.kendall_interval = {quantile(taus, 0.025), quantile(taus, 0.975)};
  return agreement;
}

}  // namespace

std::vector<Agreement> measure_agreement(const ResultTable& results, const Verification& verification) {
  std::vector<Agreement> found;
  std::vector<std::size_t> all;
  for (std::size_t c = 0; c < verification.candidates.size(); ++c) all.push_back(c);
  for (const double keep : verification.plan.keep) {
    std::vector<std::size_t> at_keep;
    std::copy_if(all.begin(), all.end(), std::back_inserter(at_keep),
                 [&](std::size_t c) { return verification.candidates[c].choice.keep == keep; });
    found.push_back(agreement_of(results, verification, keep, at_keep));
  }
  if (verification.plan.keep.size() > 1) found.push_back(agreement_of(results, verification, 0, all));
  return found;
}

double mean_kl(const Verification& verification, std::size_t candidate) {
  std::vector<double> kl;
  for (const VerifyRow& row : verification.rows) {
    if (row.candidate == candidate && !std::isnan(row.kl)) kl.push_back(row.kl);
  }
  return mean(kl);
}

}  // namespace depthkv
