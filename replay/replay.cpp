// SPDX-License-Identifier: Apache-2.0
#include "depthkv/replay.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <mutex>

#include "depthkv/error.h"
#include "kernels/cuda_backend.h"
#include "kernels/parallel.h"
#include "replay/sets.h"
#include "replay/turns.h"

namespace depthkv {
namespace {

void expect_cut(const MeasuredOn& on, Cut cut) {
  if (on.cut != to_string(cut))
    throw InputError(fmt::format("{}: measured at the cut {}, the plan prunes at the cut {}; measure it there", on.file,
                                 on.cut, to_string(cut)));
}

void expect_model(const MeasuredOn& on, const ModelCard& model) {
  if (on.fingerprint != model.fingerprint)
    throw InputError(fmt::format("{}: measured on {} ({}), the traces are of {} ({}); measure it there", on.file,
                                 on.model, on.fingerprint, model.name, model.fingerprint));
}

std::vector<MeasuredOn> measured_on(const Policies& policies, const ReplayPlan& plan) {
  std::vector<MeasuredOn> files;
  if (const std::optional<Importance>& importance = policies.importance)
    files.push_back({plan.importance.string(), importance->model, importance->fingerprint, importance->cut});
  for (const LayerAllocator& allocator : policies.layer_allocators)
    if (allocator.measured_on) files.push_back(*allocator.measured_on);
  return files;
}

// What was measured of layers holds for the model that it was measured on.
void check_measured(const ResultTable& table) {
  for (const MeasuredOn& on : measured_on(table.policies, table.plan)) expect_model(on, table.model);
  const std::optional<Importance>& importance = table.policies.importance;
  const std::size_t layers = prunable_layers(table.model).size();
  if (importance && importance->layers.size() != layers)
    throw InputError(fmt::format("{}: has {} layers, the traces' model has {} that can be pruned; measure it there",
                                 table.plan.importance.string(), importance->layers.size(), layers));
}

void add_unless_named(std::vector<PolicySpec>& specs, const std::string& name) {
  const auto same = [&](const PolicySpec& spec) { return spec.name == name; };
  if (std::none_of(specs.begin(), specs.end(), same)) specs.push_back({name, {}, "bounds"});
}

// One sample, all policies.
class SampleReplay {
 public:
  // `plan` is the table's, but for the number of threads.
  SampleReplay(const Trace& trace, const ResultTable& table, const ReplayPlan& plan, const ReplayWatch& watch)
      : trace_(trace), table_(table), plan_(plan), policies_(table.policies), watch_(watch) {
    sample_.id = trace.sample().id;
    sample_.task = trace.sample().task;
    sample_.tokens = trace.sample().segments.at(plan_.cut);
    sample_.has_evidence = !trace.sample().evidence.empty();
    sample_.ranker_skipped.resize(policies_.rankers.size());
    sample_.layer_skipped.resize(policies_.layer_allocators.size());
    sample_.head_skipped.resize(policies_.head_allocators.size());
    sample_.kept.assign(policies_.size() * plan_.keep.size(), 0);
    sample_.values.assign(sample_.kept.size() * kMetrics.size(), std::numeric_limits<double>::quiet_NaN());
    const Shape shape = prunable_shape(trace.model(), sample_.tokens);
    for (const double keep : plan_.keep) sample_.entries.push_back(budget_from_keep(shape, keep).entries);
  }

  SampleResult run() {
    if (trace_.sample().size() <= sample_.tokens) {
      sample_.skipped = "no rows at or after the cut to judge by: the answer is empty";
      return sample_;
    }
    SampleCurves curves(trace_, plan_, policies_);
    const Span judged = plan_rows(trace_.query_rows(), sample_.tokens, 0).judged;
    sample_.judged_rows = judged.end - judged.begin;
    sample_.ranker_skipped = curves.ranker_skipped;
    sample_.layer_skipped = curves.layer_skipped;
    sample_.head_skipped = curves.head_skipped;
    curves.run(std::vector<bool>(policies_.rankers.size(), true));
    for (std::size_t r = 0; r < policies_.rankers.size(); ++r) {
      if (!sample_.ranker_skipped[r].empty()) continue;
      for (const Variant& variant : variants_of(policies_.rankers[r], r, plan_)) evaluate(curves, variant);
    }
    measure_direct();
    return sample_;
  }

 private:
  // What the direct path or a watcher has to look at again.
  struct Later {
    std::size_t policy;
    std::size_t keep;
    SetRequest request;
  };
  // Of one policy, beside its values.
  struct Found {
    std::vector<Later> later;
    std::map<std::size_t, std::string> skipped;
  };

  // Every pair of allocators and every budget of one variant.
  void evaluate(SampleCurves& curves, const Variant& variant) {
    const RankedSample ranked = curves.load(variant);
    if (watch_.scores && (!variant.keep || *variant.keep == 0)) {
      const std::vector<int> layers = prunable_layers(trace_.model());
      for (std::size_t l = 0; l < layers.size(); ++l)
        watch_.scores(trace_.sample(), table_, variant.ranker, layers[l], ranked.layers()[l].ranked.scores.view());
    }
    std::vector<std::vector<HeadSplit>> heads(policies_.head_allocators.size());
    parallel_for(static_cast<std::int64_t>(heads.size()), plan_.threads, [&](std::int64_t i) {
      const auto h = static_cast<std::size_t>(i);
      if (sample_.head_skipped[h].empty())
        heads[h] = ranked.head_splits(policies_.head_allocators[h], curves.measured_by_heads(h));
    });
    const std::size_t per_ranker = policies_.layer_allocators.size() * policies_.head_allocators.size();
    std::vector<Found> found(per_ranker);
    parallel_for(static_cast<std::int64_t>(per_ranker), plan_.threads, [&](std::int64_t i) {
      const std::size_t p = variant.ranker * per_ranker + static_cast<std::size_t>(i);
      if (!sample_.why_skipped(table_.policy(p)).empty()) return;
      const PolicyIndex index = table_.policy(p);
      const RankedSample::Allocator allocator(
          ranked, policies_, index, curves.measured_by_layers(index.layer_allocator), heads[index.head_allocator]);
      evaluate(allocator, ranked, p, found[static_cast<std::size_t>(i)]);
    });
    for (Found& one : found) {
      std::ranges::move(one.later, std::back_inserter(later_));
      sample_.budget_skipped.merge(one.skipped);
    }
  }

  void evaluate(const RankedSample::Allocator& allocator, const RankedSample& ranked, std::size_t policy,
                Found& found) {
    const Variant& variant = ranked.variant();
    const bool direct = static_cast<bool>(policies_.rankers[variant.ranker].structure.select);
    for (std::size_t k = 0; k < plan_.keep.size(); ++k) {
      if (variant.keep && *variant.keep != k) continue;
      Allocation allocation;
      try {
        allocation = allocator.at(plan_.keep[k]);
      } catch (const InfeasibleBudget& why) {
        found.skipped[policy * plan_.keep.size() + k] = why.what();
        continue;
      }
      sample_.kept[policy * plan_.keep.size() + k] = allocation.total();
      if (direct || watch_.kept) found.later.push_back({policy, k, {variant, allocation, {}}});
      if (!direct) put_losses(ranked, policy, k, allocation);
    }
  }

  void put_losses(const RankedSample& ranked, std::size_t policy, std::size_t keep, const Allocation& allocation) {
    for (const Metric metric : kMetrics) {
      double loss = 0;
      for (std::size_t l = 0; l < allocation.kept.size(); ++l)
        loss += layer_weight(policies_, metric, l, allocation.kept.size()) *
                ranked.layers()[l].loss(Rows::judged, metric, allocation.kept[l]);
      put(policy, keep, metric, loss);
    }
  }

  void put(std::size_t policy, std::size_t keep, Metric metric, double loss) {
    sample_.values[(policy * plan_.keep.size() + keep) * kMetrics.size() + static_cast<std::size_t>(metric)] =
        higher_is_better(metric) ? 1.0 - loss : loss;
  }

  void measure_direct() {
    std::vector<SetRequest> direct;
    std::vector<SetRequest> all;
    for (const Later& item : later_) {
      all.push_back(item.request);
      if (policies_.rankers[item.request.variant.ranker].structure.select) direct.push_back(item.request);
    }
    measure_sets(trace_, plan_, policies_, direct);
    auto measured = direct.begin();
    for (const Later& item : later_) {
      if (!policies_.rankers[item.request.variant.ranker].structure.select) continue;
      for (const Metric metric : kMetrics)
        put(item.policy, item.keep, metric, measured->loss[static_cast<std::size_t>(metric)]);
      ++measured;
    }
    if (!watch_.kept) return;
    const std::vector<int> layers = prunable_layers(trace_.model());
    visit_sets(trace_, plan_, policies_, all, [&](std::size_t request, std::size_t layer, const auto& kept) {
      watch_.kept(trace_.sample(), table_, later_[request].policy, later_[request].keep, layers[layer], kept);
    });
  }

  const Trace& trace_;
  const ResultTable& table_;
  const ReplayPlan& plan_;
  const Policies& policies_;
  const ReplayWatch& watch_;
  SampleResult sample_;
  std::vector<Later> later_;
};

void check_model(const Trace& trace, const ResultTable& table) {
  if (same_model(trace.model(), table.model)) return;
  throw InputError(fmt::format(
      "{}: recorded from model {} ({}), the rest of the set from {} ({}); keep one model per folder",
      trace.path().string(), trace.model().name, trace.model().fingerprint, table.model.name, table.model.fingerprint));
}

// The same, watched when all samples before this one are done.
ReplayWatch in_turn(const ReplayWatch& watch, Turns& turns, std::int64_t sample) {
  const auto wait = [&turns, sample] {
    if (!turns.wait_for(sample)) throw Error("a sample before this one has failed");  // whose error comes out
  };
  ReplayWatch waiting;
  if (watch.scores) {
    waiting.scores = [&watch, wait](const auto&... what) {
      wait();
      watch.scores(what...);
    };
  }
  if (watch.kept) {
    waiting.kept = [&watch, wait](const auto&... what) {
      wait();
      watch.kept(what...);
    };
  }
  return waiting;
}

// One sample to a device at a time. Nothing of it but the results stays.
void replay_samples(const TraceSet& traces, ResultTable& table, const Progress& progress, const ReplayWatch& watch) {
  const auto total = static_cast<std::int64_t>(traces.files.size());
  const int devices = std::max(1, static_cast<int>(std::min<std::int64_t>(device_count(table.plan.device), total)));
  ReplayPlan plan = table.plan;
  plan.threads = std::max(1, threads_of(plan.threads) / devices);
  std::vector<SampleResult> results(traces.files.size());
  Turns turns;
  std::mutex guard;
  std::int64_t done = 0;
  one_on_each_device(total, devices, [&](std::int64_t i) {
    const auto& file = traces.files[static_cast<std::size_t>(i)];
    try {
      {
        const std::scoped_lock lock(guard);
        progress("replay", done, total, file.stem().string());
      }
      const Trace trace = Trace::open(file);
      check_model(trace, table);
      const ReplayWatch watched = in_turn(watch, turns, i);
      results[static_cast<std::size_t>(i)] = SampleReplay(trace, table, plan, watched).run();
    } catch (...) {
      turns.fail(i);
      throw;
    }
    turns.done(i);
    const std::scoped_lock lock(guard);
    ++done;
  });
  table.samples = std::move(results);
  progress("replay", total, total, "");
}

}  // namespace

ReplayPlan with_bounds(ReplayPlan plan) {
  add_unless_named(plan.scorers, "random");
  add_unless_named(plan.scorers, "oracle");
  add_unless_named(plan.structures, "token");
  add_unless_named(plan.layer_allocators, "uniform");
  add_unless_named(plan.layer_allocators, "oracle");
  add_unless_named(plan.head_allocators, "uniform");
  return plan;
}

Policies make_policies(const ReplayPlan& plan, const Registry& registry) {
  Policies policies;
  for (const PolicySpec& spec : plan.scorers) {
    for (const PolicySpec& structure : plan.structures) {
      for (const Protect& protect : plan.protect)
        policies.rankers.push_back({registry.make_scorer(spec), registry.make_structure(structure), protect});
    }
  }
  for (const PolicySpec& spec : plan.layer_allocators)
    policies.layer_allocators.push_back(registry.make_layer_allocator(spec));
  for (const PolicySpec& spec : plan.head_allocators)
    policies.head_allocators.push_back(registry.make_head_allocator(spec));
  if (!plan.importance.empty()) policies.importance = read_importance(plan.importance);
  for (const MeasuredOn& on : measured_on(policies, plan)) expect_cut(on, plan.cut);
  if (policies.size() == 0)
    throw InputError("the plan names no scorer, structure, protection, layer or head allocator; name one of each");
  return policies;
}

PolicyIndex ResultTable::policy(std::size_t index) const {
  const std::size_t heads = policies.head_allocators.size();
  const std::size_t layers = policies.layer_allocators.size();
  return {index / heads / layers, index / heads % layers, index % heads};
}

bool ResultTable::is_even(PolicyIndex policy) const {
  return policies.layer_allocators[policy.layer_allocator].name == "uniform" &&
         policies.head_allocators[policy.head_allocator].name == "uniform";
}

bool ResultTable::is_bound(PolicyIndex policy) const {
  return policies.rankers[policy.ranker].scorer.oracle || policies.layer_allocators[policy.layer_allocator].oracle ||
         policies.head_allocators[policy.head_allocator].oracle;
}

std::int64_t ResultTable::kept(const SampleResult& sample, std::size_t policy, std::size_t keep) const {
  return sample.kept[policy * plan.keep.size() + keep];
}

double ResultTable::value(const SampleResult& sample, std::size_t policy, std::size_t keep, Metric metric) const {
  return sample.values[(policy * plan.keep.size() + keep) * kMetrics.size() + static_cast<std::size_t>(metric)];
}

std::string ResultTable::why_skipped(const SampleResult& sample, std::size_t index, std::size_t keep) const {
  const std::string& always = sample.why_skipped(policy(index));
  if (!always.empty()) return always;
  const auto found = sample.budget_skipped.find(index * plan.keep.size() + keep);
  return found == sample.budget_skipped.end() ? "" : found->second;
}

std::vector<double> ResultTable::values(std::size_t policy, std::size_t keep, Metric metric) const {
  std::vector<double> found;
  for (const SampleResult& sample : samples) {
    const double x = value(sample, policy, keep, metric);
    if (!std::isnan(x)) found.push_back(x);
  }
  return found;
}

const std::string& SampleResult::why_skipped(PolicyIndex policy) const {
  if (!skipped.empty()) return skipped;
  if (!ranker_skipped[policy.ranker].empty()) return ranker_skipped[policy.ranker];
  if (!layer_skipped[policy.layer_allocator].empty()) return layer_skipped[policy.layer_allocator];
  return head_skipped[policy.head_allocator];
}

bool ResultTable::any_skipped() const {
  const auto any = [](const std::vector<std::string>& reasons) {
    return std::any_of(reasons.begin(), reasons.end(), [](const std::string& why) { return !why.empty(); });
  };
  return std::any_of(samples.begin(), samples.end(), [&](const SampleResult& sample) {
    return !sample.skipped.empty() || any(sample.ranker_skipped) || any(sample.layer_skipped) ||
           any(sample.head_skipped) || !sample.budget_skipped.empty();
  });
}

ResultTable replay(const TraceSet& traces, const ReplayPlan& plan, const Registry& registry, const Progress& progress,
                   const ReplayWatch& watch) {
  ResultTable table;
  table.plan = with_bounds(plan);
  table.policies = make_policies(table.plan, registry);
  if (!traces.files.empty()) table.model = Trace::open(traces.files.front()).model();
  check_measured(table);
  replay_samples(traces, table, progress, watch);
  return table;
}

}  // namespace depthkv
