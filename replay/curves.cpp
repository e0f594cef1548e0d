// SPDX-License-Identifier: Apache-2.0
#include "replay/curves.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>

#include "depthkv/error.h"
#include "depthkv/ops.h"

namespace depthkv {

std::string_view to_string(Metric metric) {
  constexpr std::array<std::string_view, kMetrics.size()> kNames{"mass", "output_error", "evidence", "predicted_loss"};
  return kNames[static_cast<std::size_t>(metric)];
}

std::optional<Metric> metric_named(std::string_view name) {
  const auto at = std::ranges::find_if(kMetrics, [&](Metric metric) { return to_string(metric) == name; });
  return at == kMetrics.end() ? std::nullopt : std::optional(*at);
}

std::vector<std::string> replay_metric_names() {
  std::vector<std::string> names;
  for (const Metric metric : kMetrics) names.emplace_back(to_string(metric));
  return names;
}

bool higher_is_better(Metric metric) { return metric == Metric::mass || metric == Metric::evidence; }

std::vector<std::uint8_t> evidence_flags(const Sample& sample, std::int64_t cut) {
  std::vector<std::uint8_t> flags(static_cast<std::size_t>(cut));
  for (const Span& span : sample.evidence) {
    for (std::int64_t t = span.begin; t < std::min(span.end, cut); ++t) flags[static_cast<std::size_t>(t)] = 1;
  }
  return flags;
}

double RankedLayer::head_loss(Rows rows, Metric metric, std::size_t g, std::int64_t kept) const {
  const std::vector<HeadCurves>& heads = rows == Rows::judged ? judged : observed;
  if (g >= heads.size()) return std::numeric_limits<double>::quiet_NaN();
  const auto& curve = metric == Metric::mass       ? heads[g].mass
                      : metric == Metric::evidence ? heads[g].evidence
                                                   : heads[g].error;
  // A sample without evidence spans has no such loss; NaN keeps it out of every mean.
  if (curve.empty()) return std::numeric_limits<double>::quiet_NaN();
  const auto loss = static_cast<double>(curve[static_cast<std::size_t>(kept)]);
  return higher_is_better(metric) ? loss / static_cast<double>(heads.size()) : loss;
}

double RankedLayer::loss(Rows rows, Metric metric, const std::vector<std::int64_t>& kept) const {
  double sum = 0;
  for (std::size_t g = 0; g < kept.size(); ++g) sum += head_loss(rows, metric, g, kept[g]);
  return sum;
}

double layer_weight(const Policies& policies, Metric metric, std::size_t layer, std::size_t layers) {
  if (metric != Metric::predicted_loss) return 1.0 / static_cast<double>(layers);
  if (policies.importance) return policies.importance->layers[layer].sensitivity;
  const std::size_t late = layers / 2;
  return layer >= late ? 1.0 / static_cast<double>(layers - late) : 0.0;
}

std::vector<Variant> variants_of(const Ranker& ranker, std::size_t index, const ReplayPlan& plan) {
  if (!ranker.scorer.uses_keep) return {{index, std::nullopt}};
  std::vector<Variant> variants;
  for (std::size_t k = 0; k < plan.keep.size(); ++k) variants.push_back({index, k});
  return variants;
}

RankedSample::RankedSample(const Trace& trace, const ReplayPlan& plan, const Policies& policies, Variant variant,
                           std::vector<RankedLayer> layers)
    : variant_(variant),
      shape_(prunable_shape(trace.model(), trace.sample().segments.at(plan.cut))),
      numbers_(prunable_layers(trace.model())),
      protect_(policies.rankers[variant.ranker].protect),
      layers_(std::move(layers)) {
  const std::vector<std::uint8_t> is_evidence = evidence_flags(trace.sample(), shape_.tokens);
  for (RankedLayer& layer : layers_) {
    if (layer.judged.empty()) continue;
    const Tensor lost = ops_for(plan.device).evidence_curves(layer.ranked.ranking, is_evidence);
    for (std::size_t g = 0; g < layer.judged.size() && !lost.empty(); ++g) {
      const auto curve = lost.row(static_cast<std::int64_t>(g), 0);
      layer.judged[g].evidence.assign(curve.begin(), curve.end());
    }
  }
}

HeadInput RankedSample::head_input(std::size_t layer) const {
  HeadInput input;
  input.layer = numbers_[layer];
  input.scores = layers_[layer].ranked.scores.view();
  input.ranking = &layers_[layer].ranked.ranking;
  input.protect = protect_;
  return input;
}

std::vector<HeadSplit> RankedSample::head_splits(const HeadAllocator& allocator, const Measured& measured) const {
  std::vector<HeadSplit> splits;
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    HeadInput input = head_input(l);
    if (l < measured.size()) input.measured = measured[l];
    input.price = [&ranked = layers_[l]](Rows rows, Metric metric, std::int64_t head, std::int64_t kept) {
      return ranked.head_loss(rows, metric, static_cast<std::size_t>(head), kept);
    };
    splits.push_back(allocator.prepare(input));
  }
  return splits;
}

RankedSample::Allocator::Allocator(const RankedSample& sample, const Policies& policies, PolicyIndex policy,
                                   const Measured& measured, const std::vector<HeadSplit>& heads)
    : sample_(sample), heads_(heads) {
  const LayerAllocator& layers = policies.layer_allocators[policy.layer_allocator];
  layer_name_ = layers.name;
  head_name_ = policies.head_allocators[policy.head_allocator].name;
  input_.shape = sample.shape_;
  input_.layers = sample.numbers_;
  input_.protected_per_head = std::min(sample.protect_.first + sample.protect_.last, sample.shape_.tokens);
  input_.measured = measured;
  input_.ranked = [&sample](int layer) { return sample.head_input(static_cast<std::size_t>(layer)); };
  input_.price = [this](int layer, Rows rows, Metric metric, std::int64_t entries) {
    const auto l = static_cast<std::size_t>(layer);
    return sample_.layers_[l].loss(rows, metric, split(l, entries));
  };
  layers_ = layers.prepare(input_);
}

std::vector<std::int64_t> RankedSample::Allocator::split(std::size_t layer, std::int64_t entries) const {
  std::vector<std::int64_t> kept = heads_[layer](entries);
  if (std::accumulate(kept.begin(), kept.end(), std::int64_t{0}) != entries) {
    throw Error(
        fmt::format("head allocator {} split {} entries of layer {} into a different sum", head_name_, entries, layer));
  }
  return kept;
}

Allocation RankedSample::Allocator::at(double keep) const {
  Allocation allocation;
  if (!sample_.layers_[0].ranked.outcome.empty()) {
    for (const RankedLayer& layer : sample_.layers_) allocation.kept.push_back(layer.ranked.outcome);
    return allocation;
  }
  const Budget budget = budget_from_keep(input_.shape, keep);
  const std::vector<std::int64_t> per_layer = layers_(budget);
  for (std::size_t l = 0; l < per_layer.size(); ++l) allocation.kept.push_back(split(l, per_layer[l]));
  if (allocation.total() != budget.entries || allocation.kept.size() != sample_.layers_.size()) {
    throw Error(fmt::format("layer allocator {} gave out {} entries over {} layers, the budget is {} over {}",
                            layer_name_, allocation.total(), allocation.kept.size(), budget.entries,
                            sample_.layers_.size()));
  }
  return allocation;
}

}  // namespace depthkv
