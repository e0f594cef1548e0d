// SPDX-License-Identifier: Apache-2.0
// Rankings and the curves that price every budget at once.
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "depthkv/tensor.h"

namespace depthkv {

// Positions that survive before any score counts: the first `first` and the last `last` below the cut. They are ranked
// first (sinks before recents, each by rising position) and count inside the budget.
struct Protect {
  std::int64_t first = 0;
  std::int64_t last = 0;
  bool operator==(const Protect&) const = default;
};

// Best-first order of the positions below the cut, per KV head: keeping k entries of a head keeps its first k.
class Ranking {
 public:
  Ranking() = default;
  Ranking(std::int64_t heads, std::int64_t tokens)
      : heads_(heads), tokens_(tokens), order_(static_cast<std::size_t>(heads * tokens)) {}

  std::int64_t heads() const { return heads_; }
  std::int64_t tokens() const { return tokens_; }
  std::span<const std::uint32_t> head(std::int64_t kv_head) const {
    return std::span(order_).subspan(static_cast<std::size_t>(kv_head * tokens_), static_cast<std::size_t>(tokens_));
  }
  std::span<std::uint32_t> head(std::int64_t kv_head) {
    return std::span(order_).subspan(static_cast<std::size_t>(kv_head * tokens_), static_cast<std::size_t>(tokens_));
  }

 private:
  std::int64_t heads_ = 0;
  std::int64_t tokens_ = 0;
  std::vector<std::uint32_t> order_;
};

// What is measured against the full cache. mass: retained attention, higher is
// better. output_error: squared error of the head outputs over the layer's output
// energy, lower is better. evidence: share of gold tokens kept, higher is better.
// predicted_loss: output_error averaged over the later half of the layers, which predicts the model best
// (docs/decisions/019), or, where sensitivities were measured (depthkv/importance.h), its sum over layers weighted by
// them, in nats; lower is better.
enum class Metric { mass, output_error, evidence, predicted_loss };
inline constexpr std::array kMetrics{Metric::mass, Metric::output_error, Metric::evidence, Metric::predicted_loss};
std::string_view to_string(Metric metric);
std::optional<Metric> metric_named(std::string_view name);
std::vector<std::string> replay_metric_names();  // all of them, in order
bool higher_is_better(Metric metric);

// One KV head, a tile of query rows and any number of rankings of its entries. Rows see keys [0, attention.columns);
// only the first n, which all rankings order, can be pruned.
struct LossInput {
  View attention;                                              // [G, R, T], rows that sum to 1
  View values;                                                 // [1, T, d]
  std::span<const std::span<const std::uint32_t>> rankings{};  // best first, permutations of [0, n), n <= T
};

// Sums over (query head, row) of one KV head, at kept = 0 .. n. Kept set S = ranking[0, kept) and every position >= n.
// mass[k] = sum A(S). error[k] = sum |o' - o|^2 with o' = sum_S A v / A(S), or 0 where A(S) <= kNoMass.
// At kept = n: mass is exactly 1 per row, error exactly 0.
struct LossCurves {
  std::vector<double> mass;
  std::vector<double> error;
  double energy = 0;      // sum |o|^2
  std::int64_t rows = 0;  // (query head, row) pairs seen

  explicit LossCurves(std::int64_t tokens = 0)
      : mass(static_cast<std::size_t>(tokens + 1)), error(static_cast<std::size_t>(tokens + 1)) {}
};
// One KV head, a tile of query rows and one set of kept positions, all below `tokens`; the others are dropped.
struct SetInput {
  View attention;  // [G, R, T], rows that sum to 1
  View values;     // [1, T, d]
  std::span<const std::uint32_t> kept;
  std::int64_t tokens = 0;
};

// The same sums for that set.
struct SetLosses {
  double mass = 0;
  double error = 0;
  double energy = 0;
  std::int64_t rows = 0;
};
inline constexpr double kNoMass = 1e-6;  // below this the kept softmax row is numerically empty

}  // namespace depthkv
