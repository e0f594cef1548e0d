// SPDX-License-Identifier: Apache-2.0
// Ablation of single layers: end to end on the model, and as replay sees it.
#include "depthkv/importance.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "depthkv/error.h"
#include "depthkv/replay.h"
#include "replay/divergence.h"
#include "replay/sets.h"

namespace depthkv {
namespace {

constexpr std::size_t kBranches = 128;  // that share a prefill; engines bound the number of their sequences
constexpr std::int64_t kShares = 64;
constexpr std::uint64_t kBootstrapSeed = 1;

// Dense where budgets are small and losses steep.
std::vector<double> share_grid() {
  std::vector<double> shares;
  for (std::int64_t i = 0; i <= kShares; ++i)
    shares.push_back(static_cast<double>(i * i) / static_cast<double>(kShares * kShares));
  return shares;
}

// One sample under one ranker and head allocator.
class SampleAblation {
 public:
  SampleAblation(Model& model, const Trace& trace, const ReplayPlan& plan, const Policies& policies)
      : model_(model), trace_(trace), plan_(plan), policies_(policies), curves_(trace, plan, policies) {
    for (const std::string& why : {curves_.ranker_skipped[0], curves_.head_skipped[0]})
      if (!why.empty()) throw InputError(fmt::format("{}: {}", trace.path().string(), why));
    curves_.run({true});
  }

  // Adds the sample's curves at `shares` to `sums`, [layer][share].
  std::vector<AblationRow> run(const std::vector<double>& shares, std::vector<std::vector<double>>& sums) {
    for (const Variant& variant : variants_of(policies_.rankers[0], 0, plan_)) {
      const RankedSample ranked = curves_.load(variant);
      const RankedSample::Allocator allocator(ranked, policies_, {}, curves_.measured_by_layers(0),
                                              curves_.measured_by_heads(0));
      const auto variants = static_cast<double>(policies_.rankers[0].scorer.uses_keep ? plan_.keep.size() : 1);
      add_curves(ranked, allocator, shares, 1 / variants, sums);
      for (std::size_t k = 0; k < plan_.keep.size(); ++k)
        if (!variant.keep || *variant.keep == k) prune_each(ranked, allocator, plan_.keep[k]);
    }
    prune_one_entry_of_each(curves_.load(variants_of(policies_.rankers[0], 0, plan_)[0]));
    compare();
    return rows_;
  }

 private:
  void add_curves(const RankedSample& ranked, const RankedSample::Allocator& allocator,
                  const std::vector<double>& shares, double weight, std::vector<std::vector<double>>& sums) const {
    const Shape shape = prunable_shape(trace_.model(), trace_.sample().segments.at(plan_.cut));
    sums.resize(shape.layers.size(), std::vector<double>(shares.size(), 0.0));
    for (std::size_t l = 0; l < sums.size(); ++l) {
      const std::int64_t all = shape.layers[l].kv_heads * shape.tokens;
      for (std::size_t i = 0; i < shares.size(); ++i) {
        const auto entries = static_cast<std::int64_t>(std::llround(shares[i] * static_cast<double>(all)));
        sums[l][i] += weight * ranked.layers()[l].loss(Rows::judged, Metric::output_error, allocator.split(l, entries));
      }
    }
  }

  // One request per layer: that one as an even split has it, the others whole.
  void prune_each(const RankedSample& ranked, const RankedSample::Allocator& allocator, double keep) {
    const Allocation even = allocator.at(keep);
    for (std::size_t l = 0; l < even.kept.size(); ++l) prune(ranked, l, even.kept[l], keep);
  }

  void prune_one_entry_of_each(const RankedSample& ranked) {
    for (std::size_t l = 0; l < ranked.layers().size(); ++l) {
      std::vector<std::int64_t> kept = whole(ranked).kept[l];
      kept[0] -= std::min<std::int64_t>(1, kept[0]);
      prune(ranked, l, kept, 1);
    }
  }

  void prune(const RankedSample& ranked, std::size_t layer, const std::vector<std::int64_t>& kept, double keep) {
    Allocation alone = whole(ranked);
    alone.kept[layer] = kept;
    const double error = ranked.layers()[layer].loss(Rows::judged, Metric::output_error, kept);
    const int number = prunable_layers(trace_.model())[layer];
    rows_.push_back({trace_.sample().id, trace_.sample().task, keep, number, 0, 0, error});
    requests_.push_back({ranked.variant(), alone, {}});
  }

  Allocation whole(const RankedSample& ranked) const {
    Allocation all;
    for (const RankedLayer& layer : ranked.layers())
      all.kept.emplace_back(layer.judged.size(), trace_.sample().segments.at(plan_.cut));
    return all;
  }

  void compare() {
    const Sample& sample = trace_.sample();
    const std::int64_t cut = sample.segments.at(plan_.cut);
    const auto prefix = std::span(sample.tokens).first(static_cast<std::size_t>(cut));
    for (std::size_t begin = 0; begin < requests_.size(); begin += kBranches - 1) {
      const std::size_t end = std::min(requests_.size(), begin + kBranches - 1);
      std::vector<KeepMask> masks = masks_of(trace_, plan_, policies_,
                                             {requests_.begin() + static_cast<std::ptrdiff_t>(begin),
                                              requests_.begin() + static_cast<std::ptrdiff_t>(end)});
      masks.insert(masks.begin(), KeepMask::everything(trace_.model()));
      const auto branches = model_.branch(prefix, masks, sample.size() - cut);
      const std::vector<Divergence> found = measure_divergence(*branches, masks.size(), sample, cut);
      for (std::size_t i = 0; i < found.size(); ++i) {
        rows_[begin + i].kl = found[i].kl;
        rows_[begin + i].top1 = found[i].top1;
      }
    }
  }

  Model& model_;
  const Trace& trace_;
  const ReplayPlan& plan_;
  const Policies& policies_;
  SampleCurves curves_;
  std::vector<SetRequest> requests_;
  std::vector<AblationRow> rows_;
};

std::string description(const Policies& policies) {
  const Ranker& ranker = policies.rankers[0];
  const HeadAllocator& heads = policies.head_allocators[0];
  return fmt::format("scorer {} {}, structure {} {}, protect {}+{}, heads {} {}", ranker.scorer.name,
                     ranker.scorer.params, ranker.structure.name, ranker.structure.params, ranker.protect.first,
                     ranker.protect.last, heads.name, heads.params);
}

// Per sample, the mean over its rows of a layer; those that show noise, or the others.
std::vector<double> by_sample(const std::vector<AblationRow>& rows, int layer, bool noise, double AblationRow::*value) {
  std::vector<std::string> samples;
  std::vector<std::vector<double>> values;
  for (const AblationRow& row : rows) {
    if (row.layer != layer || (row.keep == 1) != noise) continue;
    if (samples.empty() || samples.back() != row.sample) {
      samples.push_back(row.sample);
      values.emplace_back();
    }
    values.back().push_back(row.*value);
  }
  std::vector<double> means;
  for (const std::vector<double>& of_sample : values) means.push_back(mean(of_sample));
  return means;
}

LayerImportance summary_of(int layer, const std::vector<AblationRow>& rows) {
  LayerImportance summary;
  summary.layer = layer;
  const std::vector<double> kl = by_sample(rows, layer, false, &AblationRow::kl);
  summary.kl = mean(kl);
  summary.kl_interval = bootstrap_mean(kl, kBootstrapSeed);
  summary.noise = mean(by_sample(rows, layer, true, &AblationRow::kl));
  summary.output_error = mean(by_sample(rows, layer, false, &AblationRow::output_error));
  summary.sensitivity = summary.output_error > 0 ? std::max(0.0, summary.kl - summary.noise) / summary.output_error : 0;
  return summary;
}

void check(const Model& model, const Trace& trace, const ReplayPlan& plan, const Policies& policies) {
  if (policies.rankers.size() != 1 || policies.head_allocators.size() != 1)
    throw InputError(
        "importance is measured under one scorer, structure, protection and head allocator; name one each");
  if (std::ranges::find(plan.keep, 1.0) != plan.keep.end())
    throw InputError("importance is measured by pruning; give budgets (keep) below 1");
  if (model.card().fingerprint != trace.model().fingerprint)
    throw InputError(fmt::format("{}: recorded from {} ({}), the model given is {} ({}); give the same file",
                                 trace.path().string(), trace.model().name, trace.model().fingerprint,
                                 model.card().name, model.card().fingerprint));
}

}  // namespace

Ablation measure_importance(Model& model, const TraceSet& traces, const ReplayPlan& plan, const Registry& registry,
                            const Progress& progress) {
  ReplayPlan alone = plan;
  alone.layer_allocators = {{"uniform", {}, ""}};
  const Policies policies = make_policies(alone, registry);
  Ablation found;
  Importance& importance = found.importance;
  importance.model = model.card().name;
  importance.fingerprint = model.card().fingerprint;
  importance.cut = to_string(plan.cut);
  importance.policy = description(policies);
  importance.keep = plan.keep;
  importance.shares = share_grid();
  std::vector<std::vector<double>> curves;
  const auto total = static_cast<std::int64_t>(traces.files.size());
  for (std::size_t s = 0; s < traces.files.size(); ++s) {
    progress("importance", static_cast<std::int64_t>(s), total, traces.files[s].stem().string());
    const Trace trace = Trace::open(traces.files[s]);
    check(model, trace, plan, policies);
    if (trace.sample().size() <= trace.sample().segments.at(plan.cut) + 1) continue;  // nothing to judge by
    std::vector<AblationRow> rows = SampleAblation(model, trace, alone, policies).run(importance.shares, curves);
    std::ranges::move(rows, std::back_inserter(found.rows));
    ++importance.samples;
  }
  progress("importance", total, total, "");
  if (importance.samples == 0)
    throw InputError(fmt::format("{}: no sample has an answer of two tokens to judge by", traces.directory.string()));
  const std::vector<int> layers = prunable_layers(model.card());
  for (std::size_t l = 0; l < layers.size(); ++l) {
    importance.layers.push_back(summary_of(layers[l], found.rows));
    for (const double sum : curves[l])
      importance.layers.back().curve.push_back(sum / static_cast<double>(importance.samples));
  }
  return found;
}

}  // namespace depthkv
