// SPDX-License-Identifier: Apache-2.0
#include "depthkv/replay.h"

#include <fmt/format.h>

#include <algorithm>

#include "depthkv/error.h"
#include "kernels/parallel.h"
#include "replay/curves.h"

namespace depthkv {
namespace {

void add_unless_named(std::vector<PolicySpec>& specs, const std::string& name) {
  const auto same = [&](const PolicySpec& spec) { return spec.name == name; };
  if (std::none_of(specs.begin(), specs.end(), same)) specs.push_back({name, {}, "bounds"});
}

template <class Policy>
bool any_of(const std::vector<Policy>& policies, bool Policy::*flag) {
  return std::any_of(policies.begin(), policies.end(), [&](const Policy& policy) { return policy.*flag; });
}

// Every policy and budget of one ranker on one sample.
void evaluate(const RankedSample& ranked, const ResultTable& table, std::size_t ranker, SampleResult& sample) {
  const Policies& policies = table.policies;
  const std::size_t keeps = table.plan.keep.size();
  const std::size_t per_ranker = policies.layer_allocators.size() * policies.head_allocators.size();
  for (std::size_t p = ranker * per_ranker; p < (ranker + 1) * per_ranker; ++p) {
    for (std::size_t k = 0; k < keeps; ++k) {
      const PolicyIndex index = table.policy(p);
      if (policies.layer_allocators[index.layer_allocator].oracle && ranked.judged_rows == 0) continue;
      const Allocation allocation = allocate(ranked, policies, index, table.plan.keep[k]);
      for (const Metric metric : {Metric::mass, Metric::output_error, Metric::evidence}) {
        double loss = 0;
        for (std::size_t l = 0; l < allocation.kept.size(); ++l) {
          loss += ranked.layers[ranker][l].loss(Rows::judged, metric, allocation.kept[l]);
        }
        loss /= static_cast<double>(allocation.kept.size());
        sample.values[(p * keeps + k) * kMetrics + static_cast<std::size_t>(metric)] =
            higher_is_better(metric) ? 1.0 - loss : loss;
      }
    }
  }
}

SampleResult replay_sample(const Trace& trace, const ResultTable& table) {
  const ReplayPlan& plan = table.plan;
  const Policies& policies = table.policies;
  SampleResult sample;
  sample.id = trace.sample().id;
  sample.task = trace.sample().task;
  sample.tokens = trace.sample().segments.at(plan.cut);
  sample.has_evidence = !trace.sample().evidence.empty();
  sample.ranker_skipped.resize(policies.rankers.size());
  sample.values.assign(policies.size() * plan.keep.size() * kMetrics, std::numeric_limits<double>::quiet_NaN());
  const Shape shape = prunable_shape(trace.model(), sample.tokens);
  for (const double keep : plan.keep) sample.entries.push_back(budget_from_keep(shape, keep).entries);
  if (trace.sample().size() <= sample.tokens) {
    sample.skipped = "no rows at or after the cut to judge by: the answer is empty";
    return sample;
  }
  const RankRequest request{.rankers = std::vector<bool>(policies.rankers.size(), true),
                            .observed = any_of(policies.layer_allocators, &LayerAllocator::observed_curves)};
  const RankedSample ranked = rank_sample(trace, plan, policies, request);
  sample.judged_rows = ranked.judged_rows;
  parallel_for(static_cast<std::int64_t>(policies.rankers.size()), plan.threads, [&](std::int64_t i) {
    const auto ranker = static_cast<std::size_t>(i);
    if (ranked.skipped[ranker]) {
      sample.ranker_skipped[ranker] = *ranked.skipped[ranker];
    } else {
      evaluate(ranked, table, ranker, sample);
    }
  });
  return sample;
}

}  // namespace

ReplayPlan with_bounds(ReplayPlan plan) {
  add_unless_named(plan.scorers, "random");
  add_unless_named(plan.scorers, "oracle");
  add_unless_named(plan.layer_allocators, "uniform");
  add_unless_named(plan.layer_allocators, "oracle");
  add_unless_named(plan.head_allocators, "uniform");
  return plan;
}

Policies make_policies(const ReplayPlan& plan, const Registry& registry) {
  Policies policies;
  for (const PolicySpec& spec : plan.scorers) {
    for (const Protect& protect : plan.protect) policies.rankers.push_back({registry.make_scorer(spec), protect});
  }
  for (const PolicySpec& spec : plan.layer_allocators)
    policies.layer_allocators.push_back(registry.make_layer_allocator(spec));
  for (const PolicySpec& spec : plan.head_allocators)
    policies.head_allocators.push_back(registry.make_head_allocator(spec));
  if (policies.size() == 0)
    throw InputError("the plan names no scorer, layer allocator or head allocator; name one of each");
  return policies;
}

PolicyIndex ResultTable::policy(std::size_t index) const {
  const std::size_t heads = policies.head_allocators.size();
  const std::size_t layers = policies.layer_allocators.size();
  return {index / heads / layers, index / heads % layers, index % heads};
}

bool ResultTable::is_bound(PolicyIndex policy) const {
  return policies.rankers[policy.ranker].scorer.oracle || policies.layer_allocators[policy.layer_allocator].oracle;
}

double ResultTable::value(const SampleResult& sample, std::size_t policy, std::size_t keep, Metric metric) const {
  return sample.values[(policy * plan.keep.size() + keep) * kMetrics + static_cast<std::size_t>(metric)];
}

std::vector<double> ResultTable::values(std::size_t policy, std::size_t keep, Metric metric) const {
  std::vector<double> found;
  for (const SampleResult& sample : samples) {
    const double x = value(sample, policy, keep, metric);
    if (!std::isnan(x)) found.push_back(x);
  }
  return found;
}

bool ResultTable::any_skipped() const {
  return std::any_of(samples.begin(), samples.end(), [](const SampleResult& sample) {
    return !sample.skipped.empty() || std::any_of(sample.ranker_skipped.begin(), sample.ranker_skipped.end(),
                                                  [](const std::string& why) { return !why.empty(); });
  });
}

ResultTable replay(const TraceSet& traces, const ReplayPlan& plan, const Registry& registry, const Progress& progress) {
  ResultTable table;
  table.plan = with_bounds(plan);
  table.policies = make_policies(table.plan, registry);
  const auto total = static_cast<std::int64_t>(traces.files.size());
  for (const auto& file : traces.files) {
    progress("replay", static_cast<std::int64_t>(table.samples.size()), total, file.stem().string());
    const Trace trace = Trace::open(file);
    if (table.samples.empty()) table.model = trace.model();
    if (trace.model() != table.model) {
      throw InputError(fmt::format(
          "{}: recorded from model {} ({}), the rest of the set from {} ({}); keep one model per folder", file.string(),
          trace.model().name, trace.model().fingerprint, table.model.name, table.model.fingerprint));
    }
    table.samples.push_back(replay_sample(trace, table));
  }
  progress("replay", total, total, "");
  return table;
}

std::vector<KeepMask> keep_masks(const Trace& trace, const ReplayPlan& plan, const Policies& policies,
                                 const std::vector<PolicyChoice>& choices) {
  RankRequest request;
  request.rankers.assign(policies.rankers.size(), false);
  request.keep_rankings = true;
  request.judged = false;
  for (const PolicyChoice& choice : choices) {
    request.rankers[choice.policy.ranker] = true;
    const LayerAllocator& allocator = policies.layer_allocators[choice.policy.layer_allocator];
    request.observed = request.observed || allocator.observed_curves;
    request.judged = request.judged || allocator.oracle;
  }
  const RankedSample ranked = rank_sample(trace, plan, policies, request);
  const std::vector<int> layers = prunable_layers(trace.model());
  std::vector<KeepMask> masks;
  for (const PolicyChoice& choice : choices) {
    if (ranked.skipped[choice.policy.ranker]) {
      throw Error(fmt::format("{}: scorer {} {}", trace.path().string(),
                              policies.rankers[choice.policy.ranker].scorer.name,
                              *ranked.skipped[choice.policy.ranker]));
    }
    const Allocation allocation = allocate(ranked, policies, choice.policy, choice.keep);
    KeepMask mask = KeepMask::everything(trace.model());
    for (std::size_t l = 0; l < allocation.kept.size(); ++l) {
      for (std::size_t g = 0; g < allocation.kept[l].size(); ++g) {
        const auto order = ranked.layers[choice.policy.ranker][l].ranking.head(static_cast<std::int64_t>(g));
        const auto dropped = order.subspan(static_cast<std::size_t>(allocation.kept[l][g]));
        std::vector<std::uint32_t>& pruned = mask.pruned[static_cast<std::size_t>(layers[l])][g];
        pruned.assign(dropped.begin(), dropped.end());
        std::sort(pruned.begin(), pruned.end());
      }
    }
    masks.push_back(std::move(mask));
  }
  return masks;
}

KeepMask KeepMask::everything(const ModelCard& model) {
  KeepMask mask;
  for (const LayerShape& layer : model.layers) mask.pruned.emplace_back(static_cast<std::size_t>(layer.kv_heads));
  return mask;
}

}  // namespace depthkv
