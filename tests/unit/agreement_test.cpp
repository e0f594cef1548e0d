// SPDX-License-Identifier: Apache-2.0
#include "replay/agreement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include "depthkv/registry.h"

namespace depthkv {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

// Scorers as policies, at two keeps; what replay says and what the model did, as a function of policy, keep and sample.
class Verified {
 public:
  using Number = std::function<double(std::size_t policy, std::size_t keep, std::size_t sample)>;

  explicit Verified(std::size_t samples) {
    results_.plan.keep = verification_.plan.keep = {0.2, 0.4};
    for (const char* name : {"h2o", "knorm", "observed", "random", "sink_recent", "snapkv"})
      results_.plan.scorers.push_back({name, {}, ""});
    results_.plan.layer_allocators = results_.plan.head_allocators = {{"uniform", {}, ""}};
    results_.policies = make_policies(results_.plan, builtin_policies());
    for (std::size_t s = 0; s < samples; ++s) {
      SampleResult sample;
      sample.id = std::to_string(s);
      sample.task = s % 2 == 0 ? "even" : "odd";
      sample.values.assign(policies() * 2 * kMetrics.size(), kNone);
      results_.samples.push_back(sample);
    }
    for (std::size_t k = 0; k < 2; ++k)
      for (std::size_t p = 0; p < policies(); ++p)
        verification_.candidates.push_back({{results_.policy(p), results_.plan.keep[k]}, p, k, "control", 0});
  }

  std::size_t policies() const { return results_.policies.size(); }
  VerifyPlan& plan() { return verification_.plan; }

  void predict(Metric metric, const Number& value) {
    for (std::size_t s = 0; s < results_.samples.size(); ++s)
      for (std::size_t p = 0; p < policies(); ++p)
        for (std::size_t k = 0; k < 2; ++k)
          results_.samples[s].values[(p * 2 + k) * kMetrics.size() + static_cast<std::size_t>(metric)] = value(p, k, s);
  }

  std::vector<Agreement> agree(const Number& kl) {
    for (std::size_t s = 0; s < results_.samples.size(); ++s) {
      for (std::size_t c = 0; c < verification_.candidates.size(); ++c) {
        VerifyRow row;
        row.candidate = c;
        row.sample = s;
        row.kl = kl(verification_.candidates[c].policy, verification_.candidates[c].keep_index, s);
        verification_.rows.push_back(row);
      }
    }
    return measure_agreement(results_, verification_);
  }

 private:
  ResultTable results_;
  Verification verification_;
};

const Agreement& find(const std::vector<Agreement>& all, Metric metric, const std::string& task, double keep) {
  return *std::find_if(all.begin(), all.end(),
                       [&](const Agreement& a) { return a.metric == metric && a.task == task && a.keep == keep; });
}

double rising(std::size_t policy, std::size_t keep, std::size_t sample) {
  return 1.0 + static_cast<double>(policy) - 0.5 * static_cast<double>(keep) + 0.01 * static_cast<double>(sample);
}

TEST(Agreement, IsWholeWhereTheOrdersAreEqual) {
  Verified verified(5);
  verified.plan().top = 2;
  verified.predict(Metric::output_error, rising);
  verified.predict(Metric::mass, [](auto... at) { return 1.0 - 0.01 * rising(at...); });  // higher is better
  const auto all = verified.agree([](auto... at) { return 3 * rising(at...); });
  for (const Metric metric : {Metric::output_error, Metric::mass}) {
    for (const double keep : {0.2, 0.4, 0.0}) {
      const Agreement& it = find(all, metric, kAllTasks, keep);
      EXPECT_EQ(it.policies, keep == 0 ? 12U : 6U);
      EXPECT_EQ(it.samples, 5U);
      EXPECT_EQ(it.top, 2U);
      EXPECT_NEAR(it.kendall.value, 1, 1e-12);
      EXPECT_NEAR(it.kendall.interval.low, 1, 1e-12);
      EXPECT_NEAR(it.spearman.value, 1, 1e-12);
      EXPECT_EQ(it.regret.value, 0);
      EXPECT_EQ(it.top_holds_best, 1);
      EXPECT_NEAR(it.halves_kendall, 1, 1e-12);
    }
  }
  EXPECT_EQ(find(all, Metric::output_error, "even", 0).samples, 3U);
  EXPECT_EQ(find(all, Metric::output_error, "odd", 0).samples, 2U);
}

TEST(Agreement, RegretIsOfTheBestInTheTop) {
  Verified verified(3);
  verified.plan().top = 2;
  verified.predict(Metric::output_error, rising);
  // KL 5 4 3 2 1 0 by policy: the top two, 0 and 1, hold 4 at best, of 0 to 5.
  const auto all = verified.agree([](std::size_t p, auto...) { return 5.0 - static_cast<double>(p); });
  const Agreement& it = find(all, Metric::output_error, kAllTasks, 0.2);
  EXPECT_NEAR(it.kendall.value, -1, 1e-12);
  EXPECT_NEAR(it.regret.value, 0.8, 1e-12);
  EXPECT_NEAR(it.regret.interval.high, 0.8, 1e-12);
  EXPECT_EQ(it.top_holds_best, 0);
}

TEST(Agreement, OfOneSwapIsTheTextbooks) {
  Verified verified(2);
  verified.predict(Metric::output_error, rising);
  const double kl[] = {1, 0, 2, 3, 4, 5};
  const auto all = verified.agree([&](std::size_t p, auto...) { return kl[p]; });
  const Agreement& it = find(all, Metric::output_error, kAllTasks, 0.4);
  EXPECT_NEAR(it.kendall.value, 13.0 / 15.0, 1e-12);              // 14 pairs agree, one doesn't
  EXPECT_NEAR(it.spearman.value, 1 - 6.0 * 2 / (6 * 35), 1e-12);  // two ranks are off by one
  EXPECT_NEAR(it.halves_kendall, 1, 1e-12);
}

TEST(Agreement, OfNoiseIsWideAndHalvesSayHowMuch) {
  Verified verified(12);
  verified.predict(Metric::output_error, rising);
  std::mt19937 random(1);
  const auto noise = [&](auto...) { return static_cast<double>(random()); };
  const auto all = verified.agree(noise);
  const Agreement& it = find(all, Metric::output_error, kAllTasks, 0);
  EXPECT_LT(std::abs(it.halves_kendall), 0.5);
  EXPECT_GT(it.kendall.interval.high - it.kendall.interval.low, 0.2);
  EXPECT_LE(it.kendall.interval.low, it.kendall.value);
  EXPECT_GE(it.kendall.interval.high, it.kendall.value);
}

TEST(Agreement, LeavesOutSamplesWithoutAKlAndMetricsWithoutValues) {
  Verified verified(4);
  verified.predict(Metric::output_error, rising);
  const auto all = verified.agree([](auto p, auto k, std::size_t s) { return s == 3 ? kNone : rising(p, k, s); });
  EXPECT_EQ(find(all, Metric::output_error, kAllTasks, 0).samples, 3U);
  EXPECT_NEAR(find(all, Metric::output_error, kAllTasks, 0).kendall.value, 1, 1e-12);
  EXPECT_TRUE(std::all_of(all.begin(), all.end(), [](const Agreement& a) { return a.metric == Metric::output_error; }));
}

// Both orders are over the same samples: where the second half of them has no evidence, their KL doesn't count either.
TEST(Agreement, IsOverTheSamplesThatHaveTheMetric) {
  Verified verified(4);
  verified.predict(Metric::output_error, rising);
  verified.predict(Metric::evidence, [](auto p, auto k, std::size_t s) { return s < 2 ? -rising(p, k, s) : kNone; });
  const auto all = verified.agree([](auto p, auto k, std::size_t s) { return (s < 2 ? 1 : -9) * rising(p, k, s); });
  EXPECT_EQ(find(all, Metric::evidence, kAllTasks, 0.2).samples, 2U);
  EXPECT_NEAR(find(all, Metric::evidence, kAllTasks, 0.2).kendall.value, 1, 1e-12);
  EXPECT_EQ(find(all, Metric::output_error, kAllTasks, 0.2).samples, 4U);
  EXPECT_NEAR(find(all, Metric::output_error, kAllTasks, 0.2).kendall.value, -1, 1e-12);
}

TEST(Agreement, OfOneSampleHasNoHalves) {
  Verified verified(1);
  verified.predict(Metric::output_error, rising);
  const auto all = verified.agree(rising);
  EXPECT_TRUE(std::isnan(all.front().halves_kendall));
  EXPECT_NEAR(all.front().kendall.value, 1, 1e-12);
}

}  // namespace
}  // namespace depthkv
