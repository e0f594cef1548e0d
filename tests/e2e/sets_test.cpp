// SPDX-License-Identifier: Apache-2.0
// The direct path, set by set, against curves.
#include "replay/sets.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "support/scratch.h"
#include "support/synthetic_trace.h"

namespace depthkv {
namespace {

TEST(DirectPath, GivesWhatCurvesGiveForAnyAllocation) {
  const ScratchDirectory scratch;
  SyntheticTrace options;
  options.uneven = true;
  options.output_norms = true;
  const Trace trace = Trace::open(write_synthetic_trace(scratch.path(), options));
  ReplayPlan plan;
  for (const char* scorer : {"h2o", "snapkv", "nacl", "knorm"}) plan.scorers.push_back({scorer, {}, "test"});
  plan.structures = {{"token", {}, "test"}, {"chunk", {}, "test"}, {"critical", {}, "test"}};
  plan.protect = {{0, 0}, {2, 5}};
  plan.layer_allocators = {{"uniform", {}, "test"}};
  plan.head_allocators = {{"uniform", {}, "test"}};
  plan.threads = 1;
  const Policies policies = make_policies(plan, builtin_policies());
  SampleCurves curves(trace, plan, policies);
  curves.run(std::vector<bool>(policies.rankers.size(), true));

  std::mt19937 random(1);
  std::vector<SetRequest> requests;
  const std::int64_t tokens = trace.sample().segments.at(plan.cut);
  for (std::size_t r = 0; r < policies.rankers.size(); ++r) {
    for (int i = 0; i < 4; ++i) {
      SetRequest request;
      request.variant = {r, std::nullopt};
      request.allocation.kept.assign(trace.model().layers.size(), std::vector<std::int64_t>(2));
      for (auto& layer : request.allocation.kept)
        for (std::int64_t& kept : layer) kept = std::uniform_int_distribution<std::int64_t>(0, tokens)(random);
      if (i == 0) request.allocation.kept[0] = {0, tokens};
      requests.push_back(request);
    }
  }
  measure_sets(trace, plan, policies, requests);
  for (const SetRequest& request : requests) {
    const RankedSample ranked = curves.load(request.variant);
    for (const Metric metric : {Metric::mass, Metric::output_error, Metric::evidence}) {
      double loss = 0;
      for (std::size_t l = 0; l < ranked.layers().size(); ++l)
        loss += ranked.layers()[l].loss(Rows::judged, metric, request.allocation.kept[l]) /
                static_cast<double>(ranked.layers().size());
      EXPECT_NEAR(request.loss[static_cast<std::size_t>(metric)], loss, 1e-5 * (1 + loss))
          << policies.rankers[request.variant.ranker].scorer.name << ' ' << to_string(metric);
    }
  }
}

}  // namespace
}  // namespace depthkv
