// SPDX-License-Identifier: Apache-2.0
// Ablation of single layers: end to end on the model, and as replay sees it.
#include "depthkv/importance.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "depthkv/error.h"
#include "depthkv/replay.h"
#include "replay/answers.h"
#include "replay/divergence.h"
#include "replay/sample_store.h"
#include "replay/sets.h"

namespace depthkv {
namespace {

constexpr std::int64_t kShares = 64;

// Dense where budgets are small and losses steep.
std::vector<double> share_grid() {
  std::vector<double> shares;
  for (std::int64_t i = 0; i <= kShares; ++i)
    shares.push_back(static_cast<double>(i * i) / static_cast<double>(kShares * kShares));
  return shares;
}

// What a sample says.
struct SampleFindings {
  std::vector<AblationRow> rows;
  std::vector<std::vector<double>> curves;  // [prunable layer][share]: output error
};

// One sample under one ranker and head allocator.
class SampleAblation {
 public:
  SampleAblation(Model& model, const Trace& trace, const ReplayPlan& plan, const Policies& policies,
                 std::int64_t max_new)
      : model_(model),
        trace_(trace),
        plan_(plan),
        policies_(policies),
        max_new_(max_new),
        curves_(trace, plan, policies) {
    for (const std::string& why : {curves_.ranker_skipped[0], curves_.head_skipped[0]})
      if (!why.empty()) throw InputError(fmt::format("{}: {}", trace.path().string(), why));
    curves_.run({true});
  }

  SampleFindings run(const std::vector<double>& shares) {
    for (const Variant& variant : variants_of(policies_.rankers[0], 0, plan_)) {
      const RankedSample ranked = curves_.load(variant);
      const std::vector<HeadSplit> heads =
          ranked.head_splits(policies_.head_allocators[0], curves_.measured_by_heads(0));
      const RankedSample::Allocator allocator(ranked, policies_, {}, curves_.measured_by_layers(0), heads);
      const auto variants = static_cast<double>(policies_.rankers[0].scorer.uses_keep ? plan_.keep.size() : 1);
      add_curves(ranked, allocator, shares, 1 / variants);
      for (std::size_t k = 0; k < plan_.keep.size(); ++k)
        if (!variant.keep || *variant.keep == k) prune_each(ranked, allocator, plan_.keep[k]);
    }
    const std::size_t pruned = requests_.size();
    prune_one_entry_of_each(curves_.load(variants_of(policies_.rankers[0], 0, plan_)[0]));
    compare(pruned);
    return found_;
  }

 private:
  void add_curves(const RankedSample& ranked, const RankedSample::Allocator& allocator,
                  const std::vector<double>& shares, double weight) {
    const Shape shape = prunable_shape(trace_.model(), trace_.sample().segments.at(plan_.cut));
    found_.curves.resize(shape.layers.size(), std::vector<double>(shares.size(), 0.0));
    for (std::size_t l = 0; l < found_.curves.size(); ++l) {
      const std::int64_t all = shape.layers[l].kv_heads * shape.tokens;
      for (std::size_t i = 0; i < shares.size(); ++i) {
        const auto entries = static_cast<std::int64_t>(std::llround(shares[i] * static_cast<double>(all)));
        found_.curves[l][i] +=
            weight * ranked.layers()[l].loss(Rows::judged, Metric::output_error, allocator.split(l, entries));
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
    found_.rows.push_back({trace_.sample().id, trace_.sample().task, keep, number, 0, 0, error});
    requests_.push_back({ranked.variant(), alone, {}});
  }

  Allocation whole(const RankedSample& ranked) const {
    Allocation all;
    for (const RankedLayer& layer : ranked.layers())
      all.kept.emplace_back(layer.judged.size(), trace_.sample().segments.at(plan_.cut));
    return all;
  }

  // What the first `pruned` requests answer is generated, too.
  void compare(std::size_t pruned) {
    const Sample& sample = trace_.sample();
    const std::int64_t cut = sample.segments.at(plan_.cut);
    const auto prefix = std::span(sample.tokens).first(static_cast<std::size_t>(cut));
    std::vector<KeepMask> masks = masks_of(trace_, plan_, policies_, requests_);
    masks.insert(masks.begin(), KeepMask::everything(trace_.model()));
    const auto branches = model_.branch(prefix, masks, capacity_of(sample, cut));
    const std::vector<Divergence> strayed = measure_divergence(*branches, masks.size(), sample, cut);
    for (std::size_t i = 0; i < strayed.size(); ++i) {
      found_.rows[i].kl = strayed[i].kl;
      found_.rows[i].top1 = strayed[i].top1;
    }
    const std::vector<Answer> answers = answer(model_, *branches, sample, cut, max_new_, pruned + 1);
    for (std::size_t i = 1; i < answers.size(); ++i) {
      found_.rows[i - 1].score = answers[i].score;
      found_.rows[i - 1].score_full = answers[0].score;
      found_.rows[i - 1].length_ratio = answers[i].length_ratio;
    }
  }

  std::int64_t capacity_of(const Sample& sample, std::int64_t cut) const {
    const std::int64_t generated = std::min(max_new_, room_behind(model_.card(), sample.segments));
    return std::max(sample.size(), sample.segments.prompt_end + generated) - cut;
  }

  Model& model_;
  const Trace& trace_;
  const ReplayPlan& plan_;
  const Policies& policies_;
  std::int64_t max_new_;
  SampleCurves curves_;
  std::vector<SetRequest> requests_;
  SampleFindings found_;
};

std::string description(const Policies& policies) {
  const Ranker& ranker = policies.rankers[0];
  const HeadAllocator& heads = policies.head_allocators[0];
  return fmt::format("scorer {} {}, structure {} {}, protect {}+{}, heads {} {}", ranker.scorer.name,
                     ranker.scorer.params, ranker.structure.name, ranker.structure.params, ranker.protect.first,
                     ranker.protect.last, heads.name, heads.params);
}

double drop_of(const AblationRow& row) { return row.score_full - row.score; }

// Per sample, the mean over its rows of a layer; those that show noise, or the others. Rows without a value don't
// count.
template <class Value>
std::vector<double> by_sample(const std::vector<AblationRow>& rows, int layer, bool noise, Value value) {
  std::vector<std::string> samples;
  std::vector<std::vector<double>> values;
  for (const AblationRow& row : rows) {
    if (row.layer != layer || (row.keep == 1) != noise || std::isnan(std::invoke(value, row))) continue;
    if (samples.empty() || samples.back() != row.sample) {
      samples.push_back(row.sample);
      values.emplace_back();
    }
    values.back().push_back(std::invoke(value, row));
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
  summary.kl_interval = bootstrap_mean(kl, kReportSeed);
  const std::vector<double> drops = by_sample(rows, layer, false, drop_of);
  summary.score_drop = mean(drops);
  summary.score_drop_interval = bootstrap_mean(drops, kReportSeed);
  const std::vector<double> lengths = by_sample(rows, layer, false, &AblationRow::length_ratio);
  summary.length_ratio = mean(lengths);
  summary.length_ratio_interval = bootstrap_mean(lengths, kReportSeed);
  summary.noise = mean(by_sample(rows, layer, true, &AblationRow::kl));
  summary.output_error = mean(by_sample(rows, layer, false, &AblationRow::output_error));
  summary.sensitivity = summary.output_error > 0 ? std::max(0.0, summary.kl - summary.noise) / summary.output_error : 0;
  return summary;
}

void expect_recorded_from(const Model& model, const Trace& trace) {
  if (model.card().fingerprint != trace.model().fingerprint)
    throw InputError(fmt::format("{}: recorded from {} ({}), the model given is {} ({}); give the same file",
                                 trace.path().string(), trace.model().name, trace.model().fingerprint,
                                 model.card().name, model.card().fingerprint));
}

std::string key_of(const Model& model, const Trace& trace, const ReplayPlan& plan, const Policies& policies,
                   std::int64_t max_new) {
  std::string key = fmt::format("importance generate {}\n{}", max_new, sample_key(model.card(), trace, plan));
  for (const double keep : plan.keep) key += choice_key(policies, {{}, keep});
  return key;
}

nlohmann::json packed(const SampleFindings& found) {
  auto rows = nlohmann::json::array();
  for (const AblationRow& row : found.rows)
    rows.push_back(
        {row.keep, row.layer, row.kl, row.top1, row.output_error, row.score, row.score_full, row.length_ratio});
  return {{"rows", rows}, {"curves", found.curves}};
}

SampleFindings unpacked(const nlohmann::json& kept, const Sample& sample) {
  SampleFindings found;
  for (const nlohmann::json& row : kept.at("rows"))
    found.rows.push_back({sample.id, sample.task, row.at(0).get<double>(), row.at(1).get<int>(),
                          row.at(2).get<double>(), row.at(3).get<double>(), row.at(4).get<double>(),
                          row.at(5).get<double>(), row.at(6).get<double>(), row.at(7).get<double>()});
  kept.at("curves").get_to(found.curves);
  return found;
}

// Adds to [layer][share].
void add_to(std::vector<std::vector<double>>& sums, const std::vector<std::vector<double>>& curves) {
  sums.resize(curves.size());
  for (std::size_t l = 0; l < curves.size(); ++l) {
    sums[l].resize(curves[l].size());
    for (std::size_t i = 0; i < curves[l].size(); ++i) sums[l][i] += curves[l][i];
  }
}

// The plan of one layer's pruning: its even share.
ReplayPlan with_even_layers(ReplayPlan plan) {
  plan.layer_allocators = {{"uniform", {}, ""}};
  return plan;
}

// Whether there is anything to judge by.
bool counts(const Sample& sample, Cut cut) { return sample.size() > sample.segments.at(cut) + 1; }

}  // namespace

void expect_ablation(const ReplayPlan& plan, const Policies& policies) {
  if (policies.rankers.size() != 1 || policies.head_allocators.size() != 1)
    throw InputError(
        "importance is measured under one scorer, structure, protection and head allocator; name one each");
  const Structure& structure = policies.rankers[0].structure;
  if (structure.select)
    throw InputError(
        fmt::format("importance is measured along one order of the entries, and structure {} keeps other "
                    "sets at other budgets; measure under structure token",
                    structure.name));
  if (std::ranges::find(plan.keep, 1.0) != plan.keep.end())
    throw InputError("importance is measured by pruning; give budgets (keep) below 1");
}

Ablation measure_importance(Model& model, const TraceSet& traces, const ReplayPlan& plan, const Registry& registry,
                            const Progress& progress, const std::filesystem::path& kept, std::int64_t max_new) {
  const ReplayPlan alone = with_even_layers(plan);
  const Policies policies = make_policies(alone, registry);
  expect_ablation(plan, policies);
  const SampleStore store(kept);
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
    expect_recorded_from(model, trace);
    if (!counts(trace.sample(), plan.cut)) continue;
    const std::string name = traces.files[s].stem().string();
    const std::string key = key_of(model, trace, alone, policies, max_new);
    SampleFindings of_sample;
    if (const auto done = store.take(name, key)) {
      of_sample = unpacked(*done, trace.sample());
    } else {
      of_sample = SampleAblation(model, trace, alone, policies, max_new).run(importance.shares);
      store.put(name, key, packed(of_sample));
    }
    std::ranges::move(of_sample.rows, std::back_inserter(found.rows));
    add_to(curves, of_sample.curves);
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
