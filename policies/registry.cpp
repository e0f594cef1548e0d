// SPDX-License-Identifier: Apache-2.0
// The built-in policies: one declaration and one line of a table each, sorted by name. A test compares the tables with
// the files beside this one.
#include "depthkv/registry.h"

#include <fmt/format.h>

#include <algorithm>

#include "depthkv/error.h"

namespace depthkv {

// Each in a file of its name.
Scorer make_cake(Params&);
Scorer make_cap(Params&);
Scorer make_compactor(Params&);
Scorer make_cur(Params&);
Scorer make_defensive(Params&);
Scorer make_dropkv(Params&);
Scorer make_expected_attention(Params&);
Scorer make_explicit(Params&);
Scorer make_finch(Params&);
Scorer make_h2o(Params&);
Scorer make_keydiff(Params&);
Scorer make_keyformer(Params&);
Scorer make_knorm(Params&);
Scorer make_kvcompose(Params&);
Scorer make_kvzip(Params&);
Scorer make_lagkv(Params&);
Scorer make_lava(Params&);
Scorer make_leverage(Params&);
Scorer make_nacl(Params&);
Scorer make_noncausal(Params&);
Scorer make_obcache(Params&);
Scorer make_observed(Params&);
Scorer make_oracle(Params&);
Scorer make_oracle_eviction(Params&);
Scorer make_oracle_output(Params&);
Scorer make_pyramidinfer(Params&);
Scorer make_qfilter(Params&);
Scorer make_random(Params&);
Scorer make_scissorhands(Params&);
Scorer make_sink_recent(Params&);
Scorer make_snapkv(Params&);
Scorer make_tova(Params&);
Scorer make_vatp(Params&);

Structure make_block(Params&);
Structure make_chunk(Params&);
Structure make_chunked_prefill(Params&);
Structure make_critical(Params&);
Structure make_shared(Params&);
Structure make_threshold(Params&);
Structure make_token(Params&);

LayerAllocator make_cake_layers(Params&);
LayerAllocator make_d2o_layers(Params&);
LayerAllocator make_depthkv_layers(Params&);
LayerAllocator make_dynamickv_layers(Params&);
LayerAllocator make_explicit_layers(Params&);
LayerAllocator make_kvcompose_layers(Params&);
LayerAllocator make_lava_layers(Params&);
LayerAllocator make_mga_layers(Params&);
LayerAllocator make_mlma_layers(Params&);
LayerAllocator make_mlp_layers(Params&);
LayerAllocator make_optimised_layers(Params&);
LayerAllocator make_oracle_layers(Params&);
LayerAllocator make_pooled_layers(Params&);
LayerAllocator make_pyramid_layers(Params&);
LayerAllocator make_simlayer_layers(Params&);
LayerAllocator make_squeeze_layers(Params&);
LayerAllocator make_uniform_layers(Params&);
LayerAllocator make_zigzag_layers(Params&);

HeadAllocator make_adakv_heads(Params&);
HeadAllocator make_duo_heads(Params&);
HeadAllocator make_explicit_heads(Params&);
HeadAllocator make_headkv_heads(Params&);
HeadAllocator make_oracle_heads(Params&);
HeadAllocator make_uniform_heads(Params&);

namespace {

constexpr const char* kScorer = "scorer";
constexpr const char* kStructure = "structure";
constexpr const char* kLayerAllocator = "layer allocator";
constexpr const char* kHeadAllocator = "head allocator";

std::vector<Entry<Scorer>> scorer_table() {
  return {
      {"cake", "attention of the last rows that is high or varies", "arXiv:2503.12491", make_cake, "O(H w n)"},
      {"cap", "what the entry adds to the values that future queries tell apart", "arXiv:2604.25975", make_cap,
       "O(H n d^2)"},
      {"compactor", "leverage plus non-causal attention", "arXiv:2507.08143", make_compactor, "O(H n 256 d)"},
      {"cur", "large keys with large values among their neighbours", "arXiv:2509.15038", make_cur, "O(n d)"},
      {"defensive", "worst-case attention of the last rows times output norm", "arXiv:2510.13334", make_defensive,
       "O(H w n)"},
      {"dropkv", "how much the output changes when the entry alone goes", "openreview:MqfNzH3TVH", make_dropkv,
       "O(H w n d)"},
      {"expected_attention", "attention of normally distributed future queries", "arXiv:2510.00636",
       make_expected_attention, "O(H n d^2)"},
      {"explicit", "scores from a file", "", make_explicit},
      {"finch", "attention received from the question", "doi:10.1162/tacl_a_00716", make_finch,
       "O(H q n), q question rows"},
      {"h2o", "attention received from all observed rows", "arXiv:2306.14048", make_h2o, "O(H n)"},
      {"keydiff", "keys that point elsewhere than the average key", "arXiv:2504.15364", make_keydiff, "O(n d)"},
      {"keyformer", "attention received from the last rows under Gumbel noise", "arXiv:2403.09054", make_keyformer,
       "O(H w n)"},
      {"knorm", "small key norms", "arXiv:2406.11430", make_knorm, "O(n d)"},
      {"kvcompose", "attention received when the context is fed again, at most", "arXiv:2509.05165", make_kvcompose,
       "O(H n)"},
      {"kvzip", "attention received while the context is repeated, at most", "arXiv:2505.23416", make_kvzip, "O(H n)"},
      {"lagkv", "tokens that stand out from the partition after theirs", "arXiv:2504.04704", make_lagkv,
       "O(n (d + log n))"},
      {"lava", "attention of the last rows times the head's largest value", "arXiv:2509.09754", make_lava,
       "O(H w n + n d)"},
      {"leverage", "keys that the others can't make up for", "arXiv:2507.08143", make_leverage, "O(n d sketch)"},
      {"nacl", "attention received from proxy rows, and a random share", "arXiv:2408.03675", make_nacl, "O(H w n)"},
      {"noncausal", "attention inside chunks that all rows see whole", "arXiv:2507.08143", make_noncausal,
       "O(H n 256 d)"},
      {"obcache", "attention squared times the value's squared length", "arXiv:2510.07651", make_obcache, "O(H w n)"},
      {"observed", "attention received per row that can see the entry", "kvpress", make_observed, "O(H n)"},
      {"oracle", "attention that judged rows will pay: a bound", "", make_oracle, "O(H n)"},
      {"oracle_eviction", "exact judged error of dropping the entry alone: a bound", "openreview:MqfNzH3TVH",
       make_oracle_eviction, "O(H n d) per judged row"},
      {"oracle_output", "judged output error of the entry to first order: a bound", "arXiv:2510.07651",
       make_oracle_output, "O(H n d) per judged row"},
      {"pyramidinfer", "attention received from the last rows, later ones more", "arXiv:2405.12532", make_pyramidinfer,
       "O(H w n)"},
      {"qfilter", "keys along the direction that queries share", "arXiv:2503.02812", make_qfilter, "O(n d)"},
      {"random", "uniform noise: the floor", "", make_random},
      {"scissorhands", "how seldom attention falls below uniform", "arXiv:2305.17118", make_scissorhands, "O(H w n)"},
      {"sink_recent", "the first positions, then the most recent ones", "arXiv:2309.17453", make_sink_recent},
      {"snapkv", "attention received from the last rows, pooled", "arXiv:2404.14469", make_snapkv,
       "O(H (w + kernel) n)"},
      {"tova", "what the last row attends to, in all heads alike", "arXiv:2401.06104", make_tova, "O(H n)"},
      {"vatp", "attention received times the value's L1 norm", "arXiv:2406.12335", make_vatp, "O(H n + n d)"},
  };
}

std::vector<Entry<Structure>> structure_table() {
  return {
      {"block", "block by block, cut back to the budget after each", "arXiv:2504.15364", make_block,
       "n / size scorings of budget + size entries"},
      {"chunk", "whole chunks of positions, the same in all heads", "arXiv:2502.00299", make_chunk, "O(n log n)"},
      {"chunked_prefill", "every chunk by itself, by the same share", "doi:10.1162/tacl_a_00716", make_chunked_prefill,
       "O(n log n)"},
      {"critical", "half by score, half by score times output norm", "arXiv:2502.03805", make_critical, "O(n log n)"},
      {"shared", "the same positions in all heads", "arXiv:2401.06104", make_shared, "O(n log n)"},
      {"threshold", "whatever scores enough: the budget is an outcome", "arXiv:2506.05345", make_threshold,
       "O(n log n)"},
      {"token", "every entry by itself", "", make_token, "O(n log n)"},
  };
}

std::vector<Entry<LayerAllocator>> layer_allocator_table() {
  return {
      {"cake", "more where attention is spread out and shifts", "arXiv:2503.12491", make_cake_layers, "O(H w n)"},
      {"d2o", "less where heads attend alike; the ends whole", "arXiv:2406.13035", make_d2o_layers, "O(H n)"},
      {"depthkv", "more where a layer's importance is higher", "arXiv:2604.24647", make_depthkv_layers, "O(L) prices"},
      {"dynamickv", "by the layer's share of the model's best entries", "arXiv:2412.14838", make_dynamickv_layers,
       "O(L H n log n), then O(L H log n)"},
      {"explicit", "shares as given: ratios, or a file", "", make_explicit_layers, "O(L)"},
      {"kvcompose", "the best composite tokens of all layers", "arXiv:2509.05165", make_kvcompose_layers,
       "O(L H n log n), then O(L log n)"},
      {"lava", "more where scores are spread out", "arXiv:2509.09754", make_lava_layers, "O(L H n)"},
      {"mga", "DepthKV's metric-guided allocation: by InfoNCE", "arXiv:2604.24647", make_mga_layers, "O(L)"},
      {"mlma", "DepthKV's hybrid: the middle whole, the rest by InfoNCE", "arXiv:2604.24647", make_mlma_layers, "O(L)"},
      {"mlp", "DepthKV's middle-layer protection, the rest even", "arXiv:2604.24647", make_mlp_layers, "O(L)"},
      {"optimised", "smallest predicted loss, drawn towards even", "", make_optimised_layers,
       "O(L) prices, 65 per layer once"},
      {"oracle", "smallest total judged loss: a bound", "", make_oracle_layers, "O(L) prices, 65 per layer once"},
      {"pooled", "the best entries of all layers together", "arXiv:2505.23416", make_pooled_layers,
       "O(L H n log n), then O(L H log n)"},
      {"pyramid", "linearly less with depth", "arXiv:2406.02069", make_pyramid_layers, "O(L)"},
      {"simlayer", "sinks and recent positions for lazy layers", "arXiv:2410.13846", make_simlayer_layers, "O(H n)"},
      {"squeeze", "little where attention changes the stream least", "arXiv:2404.04793", make_squeeze_layers, "O(n)"},
      {"uniform", "the same for every layer", "", make_uniform_layers, "O(L)"},
      {"zigzag", "more where more entries hold the scores' mass", "arXiv:2412.09036", make_zigzag_layers,
       "O(L H n log n)"},
  };
}

std::vector<Entry<HeadAllocator>> head_allocator_table() {
  return {
      {"adakv", "heads compete for a layer's budget by score", "arXiv:2407.11550", make_adakv_heads,
       "O(H), after one pass over O(H^2 n)"},
      {"duo", "little for heads that don't look far back", "arXiv:2410.10819", make_duo_heads, "O(H d)"},
      {"explicit", "shares as given: ratios, or a file", "", make_explicit_heads, "O(H)"},
      {"headkv", "more for heads that a table calls important", "arXiv:2410.19258", make_headkv_heads, "O(H)"},
      {"oracle", "smallest judged loss of the layer: a bound", "", make_oracle_heads, "O(H n)"},
      {"uniform", "the same for every head", "", make_uniform_heads, "O(H)"},
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
  policy.param_values = params.values();
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
