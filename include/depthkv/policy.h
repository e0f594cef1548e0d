// SPDX-License-Identifier: Apache-2.0
// A policy is a value on each axis: a scorer, a layer allocator, a head allocator. Combinations are never named.
#pragma once
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

  void done() const;
  std::string resolved() const;  // "kernel=5 pool=avg window=32", sorted, every parameter with its value

 private:
  std::string kind_;  // "scorer", "layer allocator", ...
  const PolicySpec* spec_;
  std::map<std::string, Value> resolved_;
};

// What a scorer reads. Bits say which parts of LayerFeatures must be filled, window_rows how many rows of `window`.
enum class Feature : std::uint32_t { keys = 1, values = 2, column_sums = 4, window = 8, judged = 16 };
struct Needs {
  std::uint32_t bits = 0;
  std::int64_t window_rows = 0;

  bool has(Feature feature) const { return (bits & static_cast<std::uint32_t>(feature)) != 0; }
  Needs operator|(const Needs& other) const;
};
Needs needs(std::initializer_list<Feature> features, std::int64_t window_rows = 0);

// One layer as a scorer may see it: positions below the cut only (n of them). Parts nobody needs are empty.
struct LayerFeatures {
  int layer = 0;
  int layers = 0;
  LayerShape shape;
  std::int64_t tokens = 0;        // n
  std::uint64_t sample_seed = 0;  // a hash of the sample's id, for randomised scorers
  View keys;                      // [Hkv, n, d], post-RoPE
  View values;                    // [Hkv, n, d]
  View column_sums;               // [H, 1, n]: attention received, summed over the n observed rows
  View window;                    // [H, >= window_rows, n]: attention of the last observed rows, by rising position
  View judged_sums;               // [H, 1, n]: attention received from judged rows; oracles only
};

// Ranks entries. score returns [Hkv, 1, n], larger = keep, finite (protected entries may be kForced).
struct Scorer {
  std::string name;
  Needs needs;
  std::string group;    // how query heads of a group are reduced: mean, max, sum, none
  bool oracle = false;  // looks at judged rows: a bound, not a policy
  std::function<Tensor(const LayerFeatures&, const Ops&)> score;
  std::string params;  // resolved; filled by the registry
};
inline constexpr float kForced = 3.0e38F;  // larger than any real score

// One layer's ranked scores, as a head allocator sees them.
struct HeadInput {
  View scores;  // [Hkv, 1, n]
  const Ranking* ranking;
  Protect protect;
};

// Prepares the split of a layer's budget over its heads; prepare() runs once per (layer, scorer), the split it returns
// once per budget. Splits add up to the budget exactly and respect 0 <= kept <= n.
using HeadSplit = std::function<std::vector<std::int64_t>(std::int64_t layer_entries)>;
struct HeadAllocator {
  std::string name;
  std::function<HeadSplit(const HeadInput&)> prepare;
  std::string params;
};

// Which rows a curve was measured on. Layer allocators see observed rows; oracles may see judged ones.
enum class Rows { observed, judged };

// What a layer allocator sees. `price(layer, rows, metric, entries)` is the layer's loss when `entries` of it are kept
// (lower is better for every metric), split over heads by the head allocator in force.
struct LayerInput {
  Shape shape;
  double keep = 1;
  std::int64_t protected_per_head = 0;
  std::function<double(int layer, Rows rows, Metric metric, std::int64_t entries)> price;
};

struct LayerAllocator {
  std::string name;
  bool observed_curves = false;  // calls price() on observed rows
  bool oracle = false;           // calls price() on judged rows
  // Entries per layer, adding up to the budget exactly, each within [0, Hkv * n].
  std::function<std::vector<std::int64_t>(const LayerInput&, Budget)> allocate;
  std::string params;
};

}  // namespace depthkv
