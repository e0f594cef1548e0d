// SPDX-License-Identifier: Apache-2.0
#include "replay/agreement.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <set>

namespace depthkv {
namespace {

constexpr int kResamples = 1000;
constexpr int kHalvings = 200;
constexpr std::size_t kTop = 5;  // where nothing says how many the top are

using Indices = std::vector<std::size_t>;

// One number per candidate and sample; NaN where there is none.
using Grid = std::vector<std::vector<double>>;

std::vector<double> means_over(const Grid& grid, const Indices& samples) {
  std::vector<double> means;
  std::vector<double> values;
  for (const std::vector<double>& row : grid) {
    values.clear();
    for (const std::size_t s : samples)
      if (!std::isnan(row[s])) values.push_back(row[s]);
    means.push_back(mean(values));
  }
  return means;
}

// Candidates by what is predicted, and by what the model did, on the same samples.
struct Orders {
  std::vector<double> predicted;
  std::vector<double> kl;

  // The best KL among the `top` best predicted ones (ties: the earlier candidate).
  double best_of_top(std::size_t top) const {
    Indices order(predicted.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return predicted[a] < predicted[b]; });
    double best = std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < std::min(top, order.size()); ++i) best = std::min(best, kl[order[i]]);
    return best;
  }
  // How much is lost by trusting the top: 0 when the best of it is the best of all, 1 when it is the worst.
  double regret(std::size_t top) const {
    const auto [best, worst] = std::minmax_element(kl.begin(), kl.end());
    return *worst > *best ? (best_of_top(top) - *best) / (*worst - *best) : 0.0;
  }
  bool top_holds_best(std::size_t top) const { return best_of_top(top) == *std::min_element(kl.begin(), kl.end()); }
};

// Losses that a metric predicts, and KL, of some candidates on some samples.
class Comparison {
 public:
  Comparison(const ResultTable& results, const Verification& verification, Metric metric, const Indices& candidates,
             const Indices& samples)
      : predicted_(candidates.size()), kl_(candidates.size()), samples_(samples.size()) {
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      const Candidate& c = verification.candidates[candidates[i]];
      for (const std::size_t s : samples) {
        const double value = results.value(results.samples[s], c.policy, c.keep_index, metric);
        predicted_[i].push_back(higher_is_better(metric) ? 1.0 - value : value);
      }
      kl_[i].assign(samples.size(), std::numeric_limits<double>::quiet_NaN());
    }
    for (const VerifyRow& row : verification.rows) {
      const auto c = std::find(candidates.begin(), candidates.end(), row.candidate);
      const auto s = std::find(samples.begin(), samples.end(), row.sample);
      if (c == candidates.end() || s == samples.end()) continue;
      kl_[static_cast<std::size_t>(c - candidates.begin())][static_cast<std::size_t>(s - samples.begin())] = row.kl;
    }
  }

  Agreement measure(std::size_t top, std::uint64_t seed) const {
    Indices all(samples_);
    std::iota(all.begin(), all.end(), std::size_t{0});
    const Orders orders = over(all);
    Agreement found;
    found.policies = predicted_.size();
    found.samples = samples_;
    found.top = std::min(top, predicted_.size());
    std::vector<double> kendall, spearman, regret;
    std::uint64_t state = seed;
    int held = 0;
    for (int i = 0; i < kResamples; ++i) {
      const Orders drawn = over(resample(samples_, state));
      kendall.push_back(kendall_tau_b(drawn.predicted, drawn.kl));
      spearman.push_back(spearman_rho(drawn.predicted, drawn.kl));
      regret.push_back(drawn.regret(found.top));
      held += drawn.top_holds_best(found.top) ? 1 : 0;
    }
    found.kendall = {kendall_tau_b(orders.predicted, orders.kl), percentile_interval(kendall)};
    found.spearman = {spearman_rho(orders.predicted, orders.kl), percentile_interval(spearman)};
    found.regret = {orders.regret(found.top), percentile_interval(regret)};
    found.top_holds_best = static_cast<double>(held) / kResamples;
    found.halves_kendall = halves(all, state);
    return found;
  }

 private:
  Orders over(const Indices& samples) const { return {means_over(predicted_, samples), means_over(kl_, samples)}; }

  double halves(Indices samples, std::uint64_t& state) const {
    if (samples_ < 2) return std::numeric_limits<double>::quiet_NaN();
    const auto half = samples.begin() + static_cast<std::ptrdiff_t>(samples_ / 2);
    std::vector<double> taus;
    for (int i = 0; i < kHalvings; ++i) {
      shuffle(samples, state);
      taus.push_back(kendall_tau_b(means_over(kl_, {samples.begin(), half}), means_over(kl_, {half, samples.end()})));
    }
    return mean(taus);
  }

  Grid predicted_;
  Grid kl_;
  std::size_t samples_;
};

Indices indices_where(std::size_t count, const std::function<bool(std::size_t)>& wanted) {
  Indices found;
  for (std::size_t i = 0; i < count; ++i)
    if (wanted(i)) found.push_back(i);
  return found;
}

class AgreementSurvey {
 public:
  AgreementSurvey(const ResultTable& results, const Verification& verification)
      : results_(results), verification_(verification) {
    for (const VerifyRow& row : verification.rows) {
      if (std::isnan(row.kl)) continue;  // an answer of one token
      verified_.insert(row.sample);
      tasks_.insert(results.samples[row.sample].task);
    }
  }

  std::vector<Agreement> run() {
    const std::vector<double>& keeps = verification_.plan.keep;
    std::vector<Metric> metrics{verification_.plan.rank_by};
    for (const Metric metric : kMetrics)
      if (metric != metrics.front()) metrics.push_back(metric);
    for (const Metric metric : metrics) {
      for (const double keep : keeps) add(metric, kAllTasks, keep);
      if (keeps.size() > 1) add(metric, kAllTasks, 0);
      if (tasks_.size() < 2) continue;
      for (const std::string& task : tasks_) add(metric, task, keeps.size() > 1 ? 0 : keeps.front());
    }
    return std::move(found_);
  }

 private:
  void add(Metric metric, const std::string& task, double keep) {
    const Indices candidates = indices_where(verification_.candidates.size(), [&](std::size_t c) {
      const Candidate& candidate = verification_.candidates[c];
      return candidate.role != kBound && (keep == 0 || candidate.choice.keep == keep);
    });
    // Both orders are of the same samples: those where the metric could be measured.
    const Indices samples = indices_where(results_.samples.size(), [&](std::size_t s) {
      return verified_.contains(s) && (task == kAllTasks || results_.samples[s].task == task) &&
             std::ranges::none_of(candidates, [&](std::size_t c) { return std::isnan(predicted(c, s, metric)); });
    });
    if (samples.empty()) return;
    const Comparison comparison(results_, verification_, metric, candidates, samples);
    const auto asked = static_cast<std::size_t>(verification_.plan.top);
    Agreement agreement = comparison.measure(asked > 0 ? asked : kTop, verification_.plan.seed);
    agreement.metric = metric;
    agreement.task = task;
    agreement.keep = keep;
    found_.push_back(std::move(agreement));
  }

  double predicted(std::size_t candidate, std::size_t sample, Metric metric) const {
    const Candidate& c = verification_.candidates[candidate];
    return results_.value(results_.samples[sample], c.policy, c.keep_index, metric);
  }

  const ResultTable& results_;
  const Verification& verification_;
  std::set<std::size_t> verified_;
  std::set<std::string> tasks_;
  std::vector<Agreement> found_;
};

}  // namespace

std::vector<Agreement> measure_agreement(const ResultTable& results, const Verification& verification) {
  return AgreementSurvey(results, verification).run();
}

double mean_kl(const Verification& verification, std::size_t candidate) {
  std::vector<double> kl;
  for (const VerifyRow& row : verification.rows) {
    if (row.candidate == candidate && !std::isnan(row.kl)) kl.push_back(row.kl);
  }
  return mean(kl);
}

}  // namespace depthkv
