// SPDX-License-Identifier: Apache-2.0
#include "replay/sets.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "kernels/parallel.h"

namespace depthkv {
namespace {

// One head's set, which several requests may share.
struct HeadSet {
  std::size_t variant = 0;  // in a list of the distinct ones
  std::int64_t head = 0;
  std::int64_t count = 0;
  auto operator<=>(const HeadSet&) const = default;
};

// What is known of one; nobody adds one while loops over them run.
struct Kept {
  std::vector<std::uint32_t> positions;  // ascending
  SetLosses losses;                      // filled by measure_sets
};

// Rising, without sorting: sets hold a good part of all positions.
std::vector<std::uint32_t> in_order(const std::vector<std::uint32_t>& positions, std::int64_t tokens) {
  std::vector<std::uint8_t> is_kept(static_cast<std::size_t>(tokens));
  for (const std::uint32_t j : positions) is_kept[j] = 1;
  std::vector<std::uint32_t> rising(is_kept.size());
  std::size_t count = 0;
  for (std::uint32_t j = 0; j < is_kept.size(); ++j) {
    rising[count] = j;
    count += is_kept[j];
  }
  return {rising.begin(), rising.begin() + static_cast<std::ptrdiff_t>(count)};
}

// The sets of one layer at a time.
class LayerSets {
 public:
  LayerSets(const Trace& trace, const ReplayPlan& plan, const Policies& policies,
            const std::vector<SetRequest>& requests)
      : trace_(trace), plan_(plan), policies_(policies), requests_(requests), ops_(ops_for(plan.device)) {
    for (const SetRequest& request : requests) {
      auto at = std::find(variants_.begin(), variants_.end(), request.variant);
      if (at == variants_.end()) at = variants_.insert(at, request.variant);
      variant_of_.push_back(static_cast<std::size_t>(at - variants_.begin()));
      needs_ = needs_ | policies.rankers[request.variant.ranker].needs();
    }
  }

  void load(std::size_t index, int layer) {
    selectors_.clear();
    data_ = load_layer(trace_, layer, load_request(plan_, needs_), ops_);
    for (const Variant& variant : variants_) selectors_.push_back(selector(variant));
    sets_.clear();
    for (std::size_t r = 0; r < requests_.size(); ++r) {
      const std::vector<std::int64_t>& kept = requests_[r].allocation.kept[index];
      for (std::size_t g = 0; g < kept.size(); ++g) sets_[{variant_of_[r], static_cast<std::int64_t>(g), kept[g]}] = {};
    }
    for_each_set([&](const HeadSet& set, Kept& kept) {
      kept.positions = in_order(selectors_[set.variant](static_cast<int>(set.head), set.count), data_.features.tokens);
    });
  }

  // visit(set, kept) for every distinct one, in parallel.
  template <class Visit>
  void for_each_set(Visit visit) {
    std::vector<std::pair<const HeadSet, Kept>*> all;
    for (auto& entry : sets_) all.push_back(&entry);
    parallel_for(static_cast<std::int64_t>(all.size()), plan_.threads, [&](std::int64_t i) {
      auto& [set, kept] = *all[static_cast<std::size_t>(i)];
      visit(set, kept);
    });
  }

  const Kept& at(std::size_t request, std::size_t layer, std::size_t head) const {
    return sets_.at(
        {variant_of_[request], static_cast<std::int64_t>(head), requests_[request].allocation.kept[layer][head]});
  }
  const LayerData& data() const { return data_; }
  const Ops& ops() const { return ops_; }

 private:
  KeptSet selector(const Variant& variant) {
    const Ranker& ranker = policies_.rankers[variant.ranker];
    LayerFeatures seen = data_.features;
    if (variant.keep) seen.keep = plan_.keep[*variant.keep];
    if (ranker.structure.select) return ranker.structure.select(seen, ranker.scorer, ranker.protect, ops_);
    return [ranking = ranker.structure.rank(seen, ranker.scorer, ranker.protect, ops_).ranking](int head,
                                                                                                std::int64_t kept) {
      const auto order = ranking.head(head).first(static_cast<std::size_t>(kept));
      return std::vector<std::uint32_t>(order.begin(), order.end());
    };
  }

  const Trace& trace_;
  const ReplayPlan& plan_;
  const Policies& policies_;
  const std::vector<SetRequest>& requests_;
  const Ops& ops_;
  Needs needs_;
  std::vector<Variant> variants_;
  std::vector<std::size_t> variant_of_;  // [request]
  LayerData data_;
  std::vector<KeptSet> selectors_;  // [variant]
  std::map<HeadSet, Kept> sets_;
};

double evidence_loss(const std::vector<std::uint32_t>& kept, const std::vector<std::uint8_t>& is_evidence) {
  const auto total = std::count(is_evidence.begin(), is_evidence.end(), 1);
  if (total == 0) return std::numeric_limits<double>::quiet_NaN();
  const auto found = std::count_if(kept.begin(), kept.end(), [&](std::uint32_t j) { return is_evidence[j] != 0; });
  return 1.0 - static_cast<double>(found) / static_cast<double>(total);
}

}  // namespace

void measure_sets(const Trace& trace, const ReplayPlan& plan, const Policies& policies,
                  std::vector<SetRequest>& requests) {
  if (requests.empty()) return;
  const std::vector<int> layers = prunable_layers(trace.model());
  const std::vector<std::uint8_t> is_evidence = evidence_flags(trace.sample(), trace.sample().segments.at(plan.cut));
  LayerSets sets(trace, plan, policies, requests);
  for (std::size_t l = 0; l < layers.size(); ++l) {
    sets.load(l, layers[l]);
    const LayerData& data = sets.data();
    const std::int64_t group = data.features.shape.group();
    sets.for_each_set([&](const HeadSet& set, Kept& kept) {
      kept.losses =
          sets.ops().set_losses({data.judged.view().head_range(set.head * group, group),
                                 data.values.view().head_range(set.head, 1), kept.positions, data.features.tokens});
    });
    const auto heads = static_cast<std::size_t>(data.features.shape.kv_heads);
    for (std::size_t r = 0; r < requests.size(); ++r) {
      for (std::size_t g = 0; g < heads; ++g) {
        const SetLosses& loss = sets.at(r, l, g).losses;
        expect_numbers(trace, layers[l], std::isfinite(loss.mass + loss.error + loss.energy));
      }
      double energy = 0;
      double error = 0;
      for (std::size_t g = 0; g < heads; ++g) {
        const auto& [positions, loss] = sets.at(r, l, g);
        const double per_head = 1.0 / static_cast<double>(heads * layers.size());
        requests[r].loss[static_cast<std::size_t>(Metric::mass)] +=
            std::max(0.0, 1.0 - loss.mass / static_cast<double>(loss.rows)) * per_head;
        requests[r].loss[static_cast<std::size_t>(Metric::evidence)] +=
            evidence_loss(positions, is_evidence) * per_head;
        energy += loss.energy;
        error += loss.error;
      }
      for (const Metric metric : {Metric::output_error, Metric::predicted_loss})
        requests[r].loss[static_cast<std::size_t>(metric)] +=
            energy > 0 ? layer_weight(policies, metric, l, layers.size()) * error / energy : 0.0;
    }
  }
}

void visit_sets(const Trace& trace, const ReplayPlan& plan, const Policies& policies,
                const std::vector<SetRequest>& requests, const SetVisit& visit) {
  if (requests.empty()) return;
  const std::vector<int> layers = prunable_layers(trace.model());
  LayerSets sets(trace, plan, policies, requests);
  for (std::size_t l = 0; l < layers.size(); ++l) {
    sets.load(l, layers[l]);
    for (std::size_t r = 0; r < requests.size(); ++r) {
      std::vector<std::vector<std::uint32_t>> kept;
      for (std::size_t g = 0; g < requests[r].allocation.kept[l].size(); ++g)
        kept.push_back(sets.at(r, l, g).positions);
      visit(r, l, kept);
    }
  }
}

}  // namespace depthkv
