// SPDX-License-Identifier: Apache-2.0
// What chosen policies remove, position by position, for the model to be run without it.
#include <fmt/format.h>

#include <algorithm>

#include "depthkv/error.h"
#include "replay/sets.h"

namespace depthkv {
namespace {

[[noreturn]] void refuse(const Trace& trace, const char* kind, const std::string& name, const std::string& why) {
  throw Error(fmt::format("{}: {} {} {}", trace.path().string(), kind, name, why));
}

void check_runnable(const Trace& trace, const Policies& policies, const SampleCurves& curves, PolicyIndex policy) {
  const std::string& ranker = curves.ranker_skipped[policy.ranker];
  const std::string& layers = curves.layer_skipped[policy.layer_allocator];
  const std::string& heads = curves.head_skipped[policy.head_allocator];
  if (!ranker.empty()) refuse(trace, "scorer", policies.rankers[policy.ranker].scorer.name, ranker);
  if (!layers.empty()) refuse(trace, "layer allocator", policies.layer_allocators[policy.layer_allocator].name, layers);
  if (!heads.empty()) refuse(trace, "head allocator", policies.head_allocators[policy.head_allocator].name, heads);
}

// The variant of a ranker that holds at a budget; the plan must have that budget where scores depend on it.
Variant variant_at(const ReplayPlan& plan, const Policies& policies, std::size_t ranker, double keep) {
  if (!policies.rankers[ranker].scorer.uses_keep) return {ranker, std::nullopt};
  const auto at = std::find(plan.keep.begin(), plan.keep.end(), keep);
  if (at == plan.keep.end()) {
    throw InputError(fmt::format("keep {} is not in the plan, and scorer {} depends on it; add it to replay.keep", keep,
                                 policies.rankers[ranker].scorer.name));
  }
  return {ranker, static_cast<std::size_t>(at - plan.keep.begin())};
}

}  // namespace

std::vector<KeepMask> keep_masks(const Trace& trace, const ReplayPlan& plan, const Policies& policies,
                                 const std::vector<PolicyChoice>& choices) {
  SampleCurves curves(trace, plan, policies);
  std::vector<bool> wanted(policies.rankers.size(), false);
  for (const PolicyChoice& choice : choices) {
    check_runnable(trace, policies, curves, choice.policy);
    wanted[choice.policy.ranker] = true;
  }
  curves.run(wanted);
  std::vector<SetRequest> requests;
  for (const PolicyChoice& choice : choices) {
    const Variant variant = variant_at(plan, policies, choice.policy.ranker, choice.keep);
    const RankedSample ranked = curves.load(variant);
    const std::size_t h = choice.policy.head_allocator;
    const std::vector<HeadSplit> heads = ranked.head_splits(policies.head_allocators[h], curves.measured_by_heads(h));
    const RankedSample::Allocator allocator(ranked, policies, choice.policy,
                                            curves.measured_by_layers(choice.policy.layer_allocator), heads);
    requests.push_back({variant, allocator.at(choice.keep), {}});
  }
  return masks_of(trace, plan, policies, requests);
}

std::vector<KeepMask> masks_of(const Trace& trace, const ReplayPlan& plan, const Policies& policies,
                               const std::vector<SetRequest>& requests) {
  std::vector<KeepMask> masks(requests.size(), KeepMask::everything(trace.model()));
  const std::vector<int> layers = prunable_layers(trace.model());
  const auto tokens = static_cast<std::uint32_t>(trace.sample().segments.at(plan.cut));
  visit_sets(trace, plan, policies, requests, [&](std::size_t request, std::size_t layer, const auto& kept) {
    for (std::size_t g = 0; g < kept.size(); ++g) {
      std::vector<std::uint32_t>& pruned = masks[request].pruned[static_cast<std::size_t>(layers[layer])][g];
      auto next = kept[g].begin();
      for (std::uint32_t j = 0; j < tokens; ++j) {
        if (next != kept[g].end() && *next == j) {
          ++next;
        } else {
          pruned.push_back(j);
        }
      }
    }
  });
  return masks;
}

KeepMask KeepMask::everything(const ModelCard& model) {
  KeepMask mask;
  for (const LayerShape& layer : model.layers) mask.pruned.emplace_back(static_cast<std::size_t>(layer.kv_heads));
  return mask;
}

}  // namespace depthkv
