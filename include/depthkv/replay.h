// SPDX-License-Identifier: Apache-2.0
// Replay: every policy of a plan on every sample of a trace set, without the model.
#pragma once
#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "depthkv/curve.h"
#include "depthkv/importance.h"
#include "depthkv/model.h"
#include "depthkv/ops.h"
#include "depthkv/policy.h"
#include "depthkv/progress.h"
#include "depthkv/registry.h"
#include "depthkv/trace.h"

namespace depthkv {

// The axes of a sweep; a policy is one choice of each, and the sweep is their product.
struct ReplayPlan {
  Cut cut = Cut::prompt;
  std::vector<PolicySpec> scorers;
  std::vector<PolicySpec> structures{{"token", {}, "default"}};
  std::vector<Protect> protect{{4, 32}};
  std::vector<PolicySpec> layer_allocators;
  std::vector<PolicySpec> head_allocators;
  std::vector<double> keep{0.1, 0.2, 0.4, 0.6, 0.8};
  std::int64_t observed_rows = 64;  // rows before the cut on which allocators that look at curves measure them
  // What `depthkv importance` wrote: predicted_loss weights layers by it. Empty: it looks at the later half of them.
  std::filesystem::path importance;
  Device device = Device::cpu;
  int threads = 0;  // 0: one per core
  // Where curves are kept from run to run, each under a hash of everything that it depends on; empty: nowhere.
  std::filesystem::path cache;
};

// The plan plus what every report needs beside it: scorers random and oracle, layer allocators uniform and oracle, head
// allocator uniform, each with its defaults, where the plan doesn't name them.
ReplayPlan with_bounds(ReplayPlan plan);

// A scorer, a structure and a protection: what decides which of a head's entries are kept at a count.
struct Ranker {
  Scorer scorer;
  Structure structure;
  Protect protect;

  Needs needs() const { return scorer.needs | structure.needs; }
};

// The plan's names turned into policies; every name and parameter is checked here, before any work.
struct Policies {
  std::vector<Ranker> rankers;  // scorer-major, then structure, protection-minor
  std::vector<LayerAllocator> layer_allocators;
  std::vector<HeadAllocator> head_allocators;
  std::optional<Importance> importance;  // of the plan

  std::size_t size() const { return rankers.size() * layer_allocators.size() * head_allocators.size(); }
};
Policies make_policies(const ReplayPlan& plan, const Registry& registry);

// Position of a policy in the product: which choice it makes on each axis.
struct PolicyIndex {
  std::size_t ranker = 0;
  std::size_t layer_allocator = 0;
  std::size_t head_allocator = 0;
  bool operator==(const PolicyIndex&) const = default;
};

struct SampleResult {
  std::string id;
  std::string task;
  std::int64_t tokens = 0;       // below the cut
  std::int64_t judged_rows = 0;  // query positions, at or after the cut
  bool has_evidence = false;
  std::string skipped;                                // why nothing could be measured, or empty
  std::vector<std::string> ranker_skipped;            // [ranker] likewise
  std::vector<std::string> layer_skipped;             // [layer allocator] likewise
  std::vector<std::string> head_skipped;              // [head allocator] likewise
  std::map<std::size_t, std::string> budget_skipped;  // [policy * keeps + keep] likewise, where the budget is why
  std::vector<std::int64_t> entries;                  // [keep] budget
  std::vector<std::int64_t> kept;  // [policy][keep] entries kept: the budget, unless a structure decides it
  std::vector<double> values;      // [policy][keep][metric]; NaN where not measured

  // Why a policy wasn't measured at any keep, or empty.
  const std::string& why_skipped(PolicyIndex policy) const;
};

struct ResultTable {
  ReplayPlan plan;        // resolved
  std::string plan_hash;  // of the whole resolved plan; carried by every row
  Policies policies;
  ModelCard model;
  std::vector<SampleResult> samples;

  PolicyIndex policy(std::size_t index) const;
  bool is_even(PolicyIndex policy) const;   // the budget split evenly over layers and heads
  bool is_bound(PolicyIndex policy) const;  // an oracle on some axis
  double value(const SampleResult& sample, std::size_t policy, std::size_t keep, Metric metric) const;
  std::int64_t kept(const SampleResult& sample, std::size_t policy, std::size_t keep) const;
  // Why it wasn't measured at a keep, or empty.
  std::string why_skipped(const SampleResult& sample, std::size_t policy, std::size_t keep) const;
  // Of the samples where it was measured, in their order.
  std::vector<double> values(std::size_t policy, std::size_t keep, Metric metric) const;
  bool any_skipped() const;
};

// Looks on while policies are replayed; any of the functions may be missing.
struct ReplayWatch {
  // Scores [Hkv, 1, n] of a layer under a ranker.
  std::function<void(const Sample&, const ResultTable&, std::size_t ranker, int layer, const View& scores)> scores;
  // What a policy keeps of a layer at plan.keep[keep]: ascending positions per KV head.
  std::function<void(const Sample&, const ResultTable&, std::size_t policy, std::size_t keep, int layer,
                     const std::vector<std::vector<std::uint32_t>>& kept)>
      kept;
};

ResultTable replay(const TraceSet& traces, const ReplayPlan& plan, const Registry& registry, const Progress& progress,
                   const ReplayWatch& watch = {});

// Throws InputError unless layers can be measured under the plan: one ranker and head allocator, budgets below 1, sets
// that are nested.
void expect_ablation(const ReplayPlan& plan, const Policies& policies);

// Prunes one layer at a time under the plan's only ranker and head allocator, at every budget of the plan, on the
// model. Samples without two answer tokens don't count. Throws InputError as expect_ablation(), and if nothing can be
// measured, or the traces are another model's. `kept`: as for verify(). `max_new`: most tokens generated per pruned
// layer for task scores and lengths of answers, 0: none.
Ablation measure_importance(Model& model, const TraceSet& traces, const ReplayPlan& plan, const Registry& registry,
                            const Progress& progress, const std::filesystem::path& kept = {}, std::int64_t max_new = 0);

// The entries that chosen policies remove from one sample, for the model to be run without them.
struct PolicyChoice {
  PolicyIndex policy;
  double keep = 1;
};
std::vector<KeepMask> keep_masks(const Trace& trace, const ReplayPlan& plan, const Policies& policies,
                                 const std::vector<PolicyChoice>& choices);

}  // namespace depthkv
