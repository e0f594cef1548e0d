// SPDX-License-Identifier: Apache-2.0
// The built-in policies, one line each, sorted by name. A test compares the tables with the files beside this one.
#include "depthkv/registry.h"

#include <fmt/format.h>

#include <algorithm>

#include "depthkv/error.h"
#include "policies/allocators/allocators.h"
#include "policies/scorers/scorers.h"
#include "policies/structures/structures.h"

namespace depthkv {
namespace {

constexpr const char* kScorer = "scorer";
constexpr const char* kStructure = "structure";
constexpr const char* kLayerAllocator = "layer allocator";
constexpr const char* kHeadAllocator = "head allocator";

std::vector<Entry<Scorer>> scorer_table() {
  return {
      {"cake", "attention of the last rows that is high or varies", "arXiv:2503.12491", make_cake},
      {"defensive", "worst-case attention of the last rows times output norm", "arXiv:2510.13334", make_defensive},
      {"dropkv", "how much the output changes when the entry alone goes", "openreview:MqfNzH3TVH", make_dropkv},
      {"finch", "attention received from the question", "doi:10.1162/tacl_a_00716", make_finch},
      {"h2o", "attention received from all observed rows", "arXiv:2306.14048", make_h2o},
      {"keyformer", "attention received from the last rows under Gumbel noise", "arXiv:2403.09054", make_keyformer},
      {"knorm", "small key norms", "arXiv:2406.11430", make_knorm},
      {"lava", "attention of the last rows times the head's largest value", "arXiv:2509.09754", make_lava},
      {"nacl", "attention received from proxy rows, and a random share", "arXiv:2408.03675", make_nacl},
      {"observed", "attention received per row that can see the entry", "kvpress", make_observed},
      {"oracle", "attention that judged rows will pay: a bound", "", make_oracle},
      {"pyramidinfer", "attention received from the last rows, later ones more", "arXiv:2405.12532", make_pyramidinfer},
      {"random", "uniform noise: the floor", "", make_random},
      {"scissorhands", "how seldom attention falls below uniform", "arXiv:2305.17118", make_scissorhands},
      {"sink_recent", "the first positions, then the most recent ones", "arXiv:2309.17453", make_sink_recent},
      {"snapkv", "attention received from the last rows, pooled", "arXiv:2404.14469", make_snapkv},
      {"tova", "what the last row attends to, in all heads alike", "arXiv:2401.06104", make_tova},
      {"vatp", "attention received times the value's L1 norm", "arXiv:2406.12335", make_vatp},
  };
}

std::vector<Entry<Structure>> structure_table() {
  return {
      {"block", "block by block, cut back to the budget after each", "arXiv:2504.15364", make_block},
      {"chunk", "whole chunks of positions, the same in all heads", "arXiv:2502.00299", make_chunk},
      {"chunked_prefill", "every chunk by itself, by the same share", "doi:10.1162/tacl_a_00716", make_chunked_prefill},
      {"critical", "half by score, half by score times output norm", "arXiv:2502.03805", make_critical},
      {"shared", "the same positions in all heads", "arXiv:2401.06104", make_shared},
      {"threshold", "whatever scores enough: the budget is an outcome", "arXiv:2506.05345", make_threshold},
      {"token", "every entry by itself", "", make_token},
  };
}

std::vector<Entry<LayerAllocator>> layer_allocator_table() {
  return {
      {"depthkv", "more where a layer's importance is higher", "arXiv:2604.24647", make_depthkv_layers},
      {"oracle", "smallest total judged loss: a bound", "", make_oracle_layers},
      {"pyramid", "linearly less with depth", "arXiv:2406.02069", make_pyramid_layers},
      {"uniform", "the same for every layer", "", make_uniform_layers},
  };
}

std::vector<Entry<HeadAllocator>> head_allocator_table() {
  return {
      {"adakv", "heads compete for a layer's budget by score", "arXiv:2407.11550", make_adakv_heads},
      {"uniform", "the same for every head", "", make_uniform_heads},
  };
}

template <class Policy>
std::vector<std::string> names(const std::vector<Entry<Policy>>& entries) {
  std::vector<std::string> all;
  for (const Entry<Policy>& entry : entries) all.push_back(entry.name);
  return all;
}

template <class Policy>
void add_to(std::vector<Entry<Policy>>& entries, Entry<Policy> entry, const char* kind) {
  const std::vector<std::string> taken = names(entries);
  if (std::find(taken.begin(), taken.end(), entry.name) != taken.end()) {
    throw Error(fmt::format("{} \"{}\" is registered already; choose another name", kind, entry.name));
  }
  entries.push_back(std::move(entry));
}

template <class Policy>
Policy make(const std::vector<Entry<Policy>>& entries, const PolicySpec& spec, const char* kind) {
  const auto entry =
      std::find_if(entries.begin(), entries.end(), [&](const Entry<Policy>& e) { return e.name == spec.name; });
  if (entry == entries.end()) {
    throw InputError(fmt::format("{}{}unknown {} \"{}\"{}; there are {}", spec.where, spec.where.empty() ? "" : ": ",
                                 kind, spec.name, suggestion(spec.name, names(entries)),
                                 fmt::join(names(entries), ", ")));
  }
  Params params(kind, spec);
  Policy policy = entry->make(params);
  params.done();
  policy.name = entry->name;
  policy.params = params.resolved();
  return policy;
}

}  // namespace

void Registry::add(Entry<Scorer> entry) { add_to(scorers_, std::move(entry), kScorer); }
void Registry::add(Entry<Structure> entry) { add_to(structures_, std::move(entry), kStructure); }
void Registry::add(Entry<LayerAllocator> entry) { add_to(layer_allocators_, std::move(entry), kLayerAllocator); }
void Registry::add(Entry<HeadAllocator> entry) { add_to(head_allocators_, std::move(entry), kHeadAllocator); }

Scorer Registry::make_scorer(const PolicySpec& spec) const { return make(scorers_, spec, kScorer); }
Structure Registry::make_structure(const PolicySpec& spec) const { return make(structures_, spec, kStructure); }
LayerAllocator Registry::make_layer_allocator(const PolicySpec& spec) const {
  return make(layer_allocators_, spec, kLayerAllocator);
}
HeadAllocator Registry::make_head_allocator(const PolicySpec& spec) const {
  return make(head_allocators_, spec, kHeadAllocator);
}

Registry builtin_policies() {
  Registry registry;
  for (const auto& entry : scorer_table()) registry.add(entry);
  for (const auto& entry : structure_table()) registry.add(entry);
  for (const auto& entry : layer_allocator_table()) registry.add(entry);
  for (const auto& entry : head_allocator_table()) registry.add(entry);
  return registry;
}

}  // namespace depthkv
