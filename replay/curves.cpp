// SPDX-License-Identifier: Apache-2.0
#include "replay/curves.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>

#include "depthkv/error.h"
#include "kernels/parallel.h"
#include "replay/features.h"

namespace depthkv {
namespace {

// Share of the evidence tokens that are lost when the first k of the ranking are kept.
std::vector<float> evidence_curve(std::span<const std::uint32_t> ranking, const std::vector<bool>& is_evidence) {
  const auto total = std::count(is_evidence.begin(), is_evidence.end(), true);
  if (total == 0) return {};
  std::vector<float> lost(ranking.size() + 1);
  auto left = total;
  lost[0] = 1.0F;
  for (std::size_t k = 0; k < ranking.size(); ++k) {
    left -= is_evidence[ranking[k]] ? 1 : 0;
    lost[k + 1] = static_cast<float>(static_cast<double>(left) / static_cast<double>(total));
  }
  return lost;
}

std::vector<bool> evidence_flags(const Sample& sample, std::int64_t cut) {
  std::vector<bool> flags(static_cast<std::size_t>(cut), false);
  for (const Span& span : sample.evidence) {
    for (std::int64_t t = span.begin; t < std::min(span.end, cut); ++t) flags[static_cast<std::size_t>(t)] = true;
  }
  return flags;
}

// From sums over rows to the losses that allocators and reports use.
HeadCurves to_losses(const LossCurves& sums, double layer_energy) {
  HeadCurves curves;
  curves.mass.resize(sums.mass.size());
  curves.error.resize(sums.error.size());
  for (std::size_t k = 0; k < sums.mass.size(); ++k) {
    curves.mass[k] = static_cast<float>(std::max(0.0, 1.0 - sums.mass[k] / static_cast<double>(sums.rows)));
    curves.error[k] = static_cast<float>(layer_energy > 0 ? sums.error[k] / layer_energy : 0.0);
  }
  return curves;
}

class LayerPass {
 public:
  LayerPass(const Trace& trace, const ReplayPlan& plan, const Policies& policies, const RankRequest& request)
      : trace_(trace), plan_(plan), policies_(policies), request_(request), ops_(ops_for(plan.device)) {
    cut_ = trace.sample().segments.at(plan.cut);
    is_evidence_ = evidence_flags(trace.sample(), cut_);
  }

  RankedSample run() {
    RankedSample sample;
    const std::vector<int> layers = prunable_layers(trace_.model());
    if (layers.empty())
      throw InputError(fmt::format("{}: every layer of {} has a sliding window, so nothing can be pruned",
                                   trace_.path().string(), trace_.model().name));
    sample.shape = prunable_shape(trace_.model(), cut_);
    const Span judged = plan_rows(trace_.query_rows(), cut_, 0).judged;
    sample.judged_rows = judged.end - judged.begin;
    sample.skipped.resize(policies_.rankers.size());
    sample.layers.resize(policies_.rankers.size());
    for (std::size_t r = 0; r < policies_.rankers.size(); ++r) {
      if (!request_.rankers[r]) continue;
      sample.skipped[r] = missing(trace_, policies_.rankers[r].scorer.needs, plan_.cut);
      if (sample.skipped[r]) continue;
      active_.push_back(r);
      sample.layers[r].resize(sample.shape.layers.size());
    }
    const LoadRequest load = load_request();
    for (index_ = 0; index_ < layers.size(); ++index_) {
      const LayerData data = load_layer(trace_, layers[index_], load, ops_);
      rank(data, sample);
      if (request_.judged) measure(data, Rows::judged, sample);
      if (request_.observed) measure(data, Rows::observed, sample);
      if (!request_.keep_rankings) {
        for (const std::size_t r : active_) sample.layers[r][index_].ranking = {};
      }
    }
    return sample;
  }

 private:
  LoadRequest load_request() const {
    LoadRequest load;
    load.cut = plan_.cut;
    load.threads = plan_.threads;
    for (const std::size_t r : active_) load.needs = load.needs | policies_.rankers[r].scorer.needs;
    load.window_rows = std::max(load.needs.window_rows, request_.observed ? plan_.observed_rows : 0);
    return load;
  }

  void rank(const LayerData& data, RankedSample& sample) const {
    parallel_for(static_cast<std::int64_t>(active_.size()), plan_.threads, [&](std::int64_t i) {
      const std::size_t r = active_[static_cast<std::size_t>(i)];
      const Ranker& ranker = policies_.rankers[r];
      const Tensor scores = ranker.scorer.score(data.features, ops_);
      RankedLayer& ranked = sample.layers[r][index_];
      ranked.ranking = ops_.rank(scores.view(), ranker.protect);
      for (const HeadAllocator& allocator : policies_.head_allocators) {
        ranked.splits.push_back(allocator.prepare({scores.view(), &ranked.ranking, ranker.protect}));
      }
    });
  }

  // Curves of every (ranker, KV head) of a layer.
  void measure(const LayerData& data, Rows rows, RankedSample& sample) const {
    const LayerShape shape = data.features.shape;
    const View attention = rows == Rows::judged ? data.judged.view() : observed_window(data);
    if (attention.rows == 0) return;
    const auto heads = static_cast<std::size_t>(shape.kv_heads);
    std::vector<LossCurves> sums(active_.size() * heads, LossCurves(cut_));
    parallel_for(static_cast<std::int64_t>(sums.size()), plan_.threads, [&](std::int64_t task) {
      const auto index = static_cast<std::size_t>(task);
      const auto g = static_cast<std::int64_t>(index % heads);
      const RankedLayer& ranked = layer_of(sample, index / heads);
      ops_.accumulate_losses(
          {attention.head_range(g * shape.group(), shape.group()),
           data.values.view().row_range(0, attention.columns).head_range(g, 1), ranked.ranking.head(g)},
          sums[index]);
    });
    for (std::size_t i = 0; i < active_.size(); ++i) {
      const auto first = sums.begin() + static_cast<std::ptrdiff_t>(i * heads);
      const auto last = first + static_cast<std::ptrdiff_t>(heads);
      const double energy =
          std::accumulate(first, last, 0.0, [](double sum, const LossCurves& c) { return sum + c.energy; });
      RankedLayer& ranked = layer_of(sample, i);
      std::vector<HeadCurves>& curves = rows == Rows::judged ? ranked.judged : ranked.observed;
      std::transform(first, last, std::back_inserter(curves),
                     [&](const LossCurves& c) { return to_losses(c, energy); });
      if (rows != Rows::judged) continue;
      for (std::size_t g = 0; g < heads; ++g) {
        curves[g].evidence = evidence_curve(ranked.ranking.head(static_cast<std::int64_t>(g)), is_evidence_);
      }
    }
  }

  // Observed rows see nothing at or after the cut, so those columns are cut off.
  View observed_window(const LayerData& data) const {
    const std::int64_t rows = std::min(plan_.observed_rows, data.window.rows());
    return data.window.view().row_range(data.window.rows() - rows, rows).first_columns(cut_);
  }

  RankedLayer& layer_of(RankedSample& sample, std::size_t active_index) const {
    return sample.layers[active_[active_index]][index_];
  }

  const Trace& trace_;
  const ReplayPlan& plan_;
  const Policies& policies_;
  const RankRequest& request_;
  const Ops& ops_;
  std::int64_t cut_ = 0;
  std::vector<bool> is_evidence_;
  std::vector<std::size_t> active_;  // rankers that run
  std::size_t index_ = 0;            // of the layer at hand among the prunable ones
};

}  // namespace

std::string_view to_string(Metric metric) {
  constexpr std::array<std::string_view, kMetrics> kNames{"mass", "output_error", "evidence"};
  return kNames[static_cast<std::size_t>(metric)];
}

bool higher_is_better(Metric metric) { return metric != Metric::output_error; }

double RankedLayer::loss(Rows rows, Metric metric, const std::vector<std::int64_t>& kept) const {
  const std::vector<HeadCurves>& heads = rows == Rows::judged ? judged : observed;
  double sum = 0;
  for (std::size_t g = 0; g < heads.size(); ++g) {
    const auto& curve = metric == Metric::mass           ? heads[g].mass
                        : metric == Metric::output_error ? heads[g].error
                                                         : heads[g].evidence;
    // A sample without evidence spans has no such loss; NaN keeps it out of every mean.
    if (curve.empty()) return std::numeric_limits<double>::quiet_NaN();
    sum += static_cast<double>(curve[static_cast<std::size_t>(kept[g])]);
  }
  return metric == Metric::output_error ? sum : sum / static_cast<double>(heads.size());
}

RankedSample rank_sample(const Trace& trace, const ReplayPlan& plan, const Policies& policies,
                         const RankRequest& request) {
  return LayerPass(trace, plan, policies, request).run();
}

Allocation allocate(const RankedSample& sample, const Policies& policies, PolicyIndex policy, double keep) {
  const Budget budget = budget_from_keep(sample.shape, keep);
  const LayerAllocator& allocator = policies.layer_allocators[policy.layer_allocator];
  const std::vector<RankedLayer>& layers = sample.layers[policy.ranker];
  const auto split = [&](std::size_t layer, std::int64_t entries) {
    std::vector<std::int64_t> kept = layers[layer].splits[policy.head_allocator](entries);
    if (std::accumulate(kept.begin(), kept.end(), std::int64_t{0}) != entries) {
      throw Error(fmt::format("head allocator {} split {} entries of layer {} into a different sum",
                              policies.head_allocators[policy.head_allocator].name, entries, layer));
    }
    return kept;
  };
  LayerInput input;
  input.shape = sample.shape;
  input.keep = keep;
  const Protect protect = policies.rankers[policy.ranker].protect;
  input.protected_per_head = std::min(protect.first + protect.last, sample.shape.tokens);
  input.price = [&](int layer, Rows rows, Metric metric, std::int64_t entries) {
    const auto l = static_cast<std::size_t>(layer);
    return layers[l].loss(rows, metric, split(l, entries));
  };
  const std::vector<std::int64_t> per_layer = allocator.allocate(input, budget);
  Allocation allocation;
  for (std::size_t l = 0; l < per_layer.size(); ++l) allocation.kept.push_back(split(l, per_layer[l]));
  if (allocation.total() != budget.entries || allocation.kept.size() != layers.size()) {
    throw Error(fmt::format("layer allocator {} gave out {} entries over {} layers, the budget is {} over {}",
                            allocator.name, allocation.total(), allocation.kept.size(), budget.entries, layers.size()));
  }
  return allocation;
}

}  // namespace depthkv
