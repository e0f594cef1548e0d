// SPDX-License-Identifier: Apache-2.0
// A policy is a value on each axis: a scorer, a structure, a layer allocator, a head allocator. Combinations are never
// named.
#pragma once
#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "depthkv/allocation.h"
#include "depthkv/curve.h"
#include "depthkv/ops.h"
#include "depthkv/shape.h"
#include "depthkv/tensor.h"

namespace depthkv {

using Value = std::variant<bool, std::int64_t, double, std::string, std::vector<double>>;
std::string to_string(const Value& value);
using ParamValues = std::vector<std::pair<std::string, Value>>;  // by name, sorted

// One choice as the user wrote it. `where` says where ("plan.yaml:7"), for messages.
struct PolicySpec {
  std::string name;
  std::map<std::string, Value> params;
  std::string where;
};

// Hands a policy its parameters, with defaults, and keeps what was resolved. done() rejects every key nobody took.
class Params {
 public:
  Params(std::string kind, const PolicySpec& spec) : kind_(std::move(kind)), spec_(&spec) {}

  // T: bool, std::int64_t, double (an integer is accepted), std::string, std::vector<double>. Throws InputError.
  template <class T>
  T take(const std::string& name, T fallback);
  std::int64_t take_in(const std::string& name, std::int64_t fallback, std::int64_t low, std::int64_t high);
  double take_in(const std::string& name, double fallback, double low, double high);
  // One of `choices`; the message lists them.
  std::string take_choice(const std::string& name, const std::string& fallback,
                          const std::vector<std::string>& choices);

  bool is_given(const std::string& name) const { return spec_->params.contains(name); }
  void done() const;
  ParamValues values() const;    // every parameter with its value
  std::string resolved() const;  // the same as text: "kernel=5 pool=avg window=32"; text with spaces is quoted

 private:
  std::string kind_;  // "scorer", "layer allocator", ...
  const PolicySpec* spec_;
  std::map<std::string, Value> resolved_;
};

// What a policy reads. Bits say which parts of LayerFeatures must be filled, window_rows how many rows of `window` and
// `window_queries`.
enum class Feature : std::uint32_t {
  keys = 1U << 0U,
  values = 1U << 1U,
  column_sums = 1U << 2U,
  window = 1U << 3U,
  question = 1U << 4U,  // `window` holds at least the question's rows
  unrotated_keys = 1U << 5U,
  queries = 1U << 6U,  // of every observed row
  query_moments = 1U << 7U,
  output_norms = 1U << 8U,
  cosines = 1U << 9U,
  hidden = 1U << 10U,
  judged = 1U << 11U,  // oracles only
  window_queries = 1U << 12U,
  repeated = 1U << 13U,
};
inline constexpr std::array kFeatures{
    Feature::keys,           Feature::values,  Feature::column_sums,    Feature::window,       Feature::question,
    Feature::unrotated_keys, Feature::queries, Feature::query_moments,  Feature::output_norms, Feature::cosines,
    Feature::hidden,         Feature::judged,  Feature::window_queries, Feature::repeated};
std::string_view to_string(Feature feature);
struct Needs {
  std::uint32_t bits = 0;
  std::int64_t window_rows = 0;

  bool has(Feature feature) const { return (bits & static_cast<std::uint32_t>(feature)) != 0; }
  // Nothing but what belongs to single positions, so that any subset of them can be scored by itself.
  bool positional() const;
  Needs operator|(const Needs& other) const;
};
Needs needs(std::initializer_list<Feature> features, std::int64_t window_rows = 0);

// How a layer rotates queries and keys: of the first n = 2 * frequencies.size() dimensions, pair c turns by position *
// frequencies[c] radians, and what is rotated grows by `magnitude`. The dimensions beyond stay.
struct Rotary {
  enum class Pairs { none, interleaved, half_split };  // (2c, 2c + 1); (c, c + n/2)
  Pairs pairs = Pairs::none;
  std::vector<double> frequencies = {};
  double magnitude = 1;
};

// One layer as a policy may see it: positions below the cut only (n of them). Parts nobody needs are empty.
struct LayerFeatures {
  int layer = 0;
  int layers = 0;
  LayerShape shape;
  std::int64_t tokens = 0;         // n
  std::int64_t left_out = 0;       // positions that a part of the cache lacks: the next token's is tokens + left_out
  int first_kv_head = 0;           // the layer's number of head 0, where this is a part of its heads
  std::int64_t frame_rows = 0;     // how many of the first n positions come before the context: what frames it
  std::int64_t question_rows = 0;  // how many of the last n positions are the question and what frames it
  std::string sample;              // its id
  std::uint64_t sample_seed = 0;   // a hash of the id, for randomised scorers
  double keep = 1;                 // the global budget, for scorers that use it (Scorer::uses_keep)
  double attention_scale = 1;      // multiplies q . k
  Rotary rotary = {};
  View keys;                 // [Hkv, n, d], post-RoPE
  View values;               // [Hkv, n, d]
  View unrotated_keys;       // [Hkv, n, d], pre-RoPE
  View queries;              // [H, n, d], post-RoPE
  View column_sums;          // [H, 1, n]: attention received, summed over the n observed rows
  View window;               // [H, >= window_rows, n]: attention of the last observed rows, by rising position
  View window_queries;       // [H, >= window_rows, d]: those rows' queries, post-RoPE
  View query_mean;           // [H, 1, d]: mean of the observed rows' pre-RoPE queries
  View query_second_moment;  // [H, d, d]: mean of q q^T, likewise
  View output_norms_l1;      // [H, 1, n]: L1 norm of v W_O of the query head
  View output_norms_l2;      // [H, 1, n]
  View cosines;              // [1, 1, prompt]: cosine of the layer's input and of the same after attention, per token
  View hidden_scalars;       // [Stage, 1, HiddenScalar]
  View repeat_chunk;         // [H, 1, n]: Repeat::chunk; 0 outside of the context, as in the next two
  View repeat_per_input;     // [H, 1, n]: Repeat::chunk_per_input
  View repeat_cache;         // [H, 1, n]: Repeat::cache, which knows positions before the context, too
  View judged_sums;          // [H, 1, n]: attention received from judged rows
  View judged;               // [H, R, T]: attention of the judged rows, T >= n
  View all_values;           // [Hkv, T, d]: what they read

  // Positions [begin, end) by themselves; only for what Needs::positional() allows.
  LayerFeatures slice(std::int64_t begin, std::int64_t end) const;
};

// Ranks entries. score returns [Hkv, 1, n], larger = keep, finite (protected entries may be kForced).
struct Scorer {
  std::string name;
  Needs needs;
  std::string group;                    // how query heads of a group are reduced: mean, max, sum, none
  bool oracle = false;                  // looks at judged rows: a bound, not a policy
  bool uses_keep = false;               // scores depend on LayerFeatures::keep
  bool depends_on_head_number = false;  // beyond the head's data: noise drawn for each head
  bool whole_cache = false;             // can't score a part of the cache by itself, whatever it needs
  std::function<Tensor(const LayerFeatures&, const Ops&)> score;
  // Two-stage scorers: of every k entries kept beyond the protected ones, int(first_share * k) go to the best by
  // `first` and the rest to the best remaining by `score`. Kept sets stay nested.
  double first_share = 0;
  std::function<Tensor(const LayerFeatures&, const Ops&)> first;
  std::string unavailable;   // why it can't run as configured ("needs a file of scores; set file=..."), or empty
  std::string source;        // a hash of the files that scores depend on, or empty
  std::string params;        // resolved, as text; filled by the registry
  ParamValues param_values;  // the same, typed
};
inline constexpr float kForced = 3.0e38F;  // larger than any real score

// A layer's entries in the order in which they are kept.
struct Ranked {
  Tensor scores;  // [Hkv, 1, n] what head allocators compare heads by
  Ranking ranking;
  std::vector<std::int64_t> outcome;  // per KV head: kept whatever the budget, for structures that decide it; or empty
};

// Positions that a head keeps at a count, in any order: for structures whose kept sets are not nested.
using KeptSet = std::function<std::vector<std::uint32_t>(int kv_head, std::int64_t kept)>;

// Which sets of entries can be kept together: single tokens, chunks, the same ones in all heads, ...
struct Structure {
  std::string name;
  Needs needs;              // beyond the scorer's
  bool positional = false;  // scores parts of the cache by themselves, so the scorer's needs must be positional()
  std::function<Ranked(const LayerFeatures&, const Scorer&, Protect, const Ops&)> rank;
  // Where kept sets are not nested: the sets themselves. What rank() gives then only prices budgets for allocators. The
  // result may refer to the layer's data, which outlives it.
  std::function<KeptSet(const LayerFeatures&, const Scorer&, Protect, const Ops&)> select;
  std::string params;
  ParamValues param_values;
};

// Which rows a curve was measured on. Allocators see observed rows; oracles may see judged ones.
enum class Rows { observed, judged };

// One ranked layer, as a head allocator sees it.
struct HeadInput {
  int layer = 0;  // in the model
  View scores;    // [Hkv, 1, n]
  const Ranking* ranking = nullptr;
  Protect protect;
  std::span<const double> measured;  // what HeadAllocator::measure returned
  // What a head adds to its layer's loss when it keeps `kept` entries. Empty where no curves were asked for.
  std::function<double(Rows rows, Metric metric, std::int64_t kv_head, std::int64_t kept)> price;
};

// Prepares the split of a layer's budget over its heads; prepare() runs once per (layer, ranker), the split it returns
// once per budget. Splits add up to the budget exactly and respect 0 <= kept <= n.
using HeadSplit = std::function<std::vector<std::int64_t>(std::int64_t layer_entries)>;
struct HeadAllocator {
  std::string name;
  bool observed_curves = false;                                                  // calls price() on observed rows
  bool oracle = false;                                                           // calls price() on judged rows
  Needs needs;                                                                   // of measure
  std::function<std::vector<double>(const LayerFeatures&, const Ops&)> measure;  // or none; once per (sample, layer)
  std::function<HeadSplit(const HeadInput&)> prepare;
  std::string unavailable;
  std::string params;
  ParamValues param_values;
};

// What a layer allocator sees of the prunable layers, numbered 0, 1, ... `price(layer, rows, metric, entries)` is the
// layer's loss when `entries` of it are kept (lower is better for every metric), split over heads by the head allocator
// in force.
struct LayerInput {
  Shape shape;
  std::vector<int> layers;  // [layer] its number in the model
  std::int64_t protected_per_head = 0;
  std::vector<std::vector<double>> measured;   // [layer] what LayerAllocator::measure returned
  std::function<HeadInput(int layer)> ranked;  // scores and order; no curves, nothing measured
  std::function<double(int layer, Rows rows, Metric metric, std::int64_t entries)> price;
};

// What numbers about layers were measured on; they hold for nothing else.
struct MeasuredOn {
  std::string file;
  std::string model;
  std::string fingerprint;
  std::string cut;
};

// Entries per layer, adding up to the budget exactly, each within [0, Hkv * n]. Throws InfeasibleBudget where the
// allocator's own limits can't be kept.
using LayerSplit = std::function<std::vector<std::int64_t>(Budget budget)>;
// prepare() runs once per (sample, ranker, head allocator), the split it returns once per budget. It may keep a
// reference to its input.
struct LayerAllocator {
  std::string name;
  bool observed_curves = false;                                                  // calls price() on observed rows
  bool oracle = false;                                                           // calls price() on judged rows
  Needs needs;                                                                   // of measure
  std::function<std::vector<double>(const LayerFeatures&, const Ops&)> measure;  // or none; once per (sample, layer)
  std::function<LayerSplit(const LayerInput&)> prepare;
  std::optional<MeasuredOn> measured_on;  // replay of another model or cut refuses the allocator
  std::string unavailable;
  std::string params;
  ParamValues param_values;
};

}  // namespace depthkv
