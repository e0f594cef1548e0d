// SPDX-License-Identifier: Apache-2.0
// depthkv: more where a layer's importance is higher.   Dehghanighobadi and Fischer 2026 (DepthKV), arXiv:2604.24647
// One number per layer is signed, normalised over layers and mapped to weights; the budget (target = keep) or what is
// cut off it (target = prune, by one over the weights) follows them, within [floor, ceiling] times the even share. A
// centred block of protect_middle = m layers stays whole and the others share what remains, which needs m <= layers *
// keep, less what the others have to keep. A budget that can't hold the block is refused; with narrow = 1, which is the
// default where m is a strategy's own, the block is the widest that it can.
// The paper's three strategies are this with other defaults:
//   mlp   metric=none protect_middle=4                 the middle whole, the others alike
//   mga   metric=infonce stage=att, file=FILE needed   by InfoNCE, a loss: lower means keep more
//   mlma  the same with protect_middle=4               both
// Where the number comes from: `importance`, a list; `file` with a line per layer; importance.json as `file`, of which
// `metric` says what:
//   kl, output_error    what pruning the layer alone cost, on the model and in replay
//   score, length       by how much it made the task score fall, and answers shorter
//   infonce, dime, lidar, curvature, curvature_code, entropy, effective_rank  of the hidden states at `stage`
// else `metric` itself:
//   output_error, mass  replayed ablation: the loss on observed rows when only this layer is pruned to its even share
//   curvature, curvature_code, entropy, effective_rank  of the sample's own hidden states at `stage` (HiddenScalar)
//   cosine              squeeze's
//   lmba, cake          zigzag's and cake's measures with their defaults
//   none                all alike
// The sign is -1 for infonce and cosine unless set. The paper prints neither its normalisation nor its map nor m: they
// are parameters, the defaults are ours.
//   map softmax: exp(x / temperature); shift: 1 + distance to the least important; inverse: 1 / -x, that is one over
//   the metric with sign=-1 normalise=none, or, unless all -x are positive, one over 1 + distance to the most important
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "depthkv/error.h"
#include "depthkv/policy.h"
#include "depthkv/trace.h"
#include "policies/allocators/depthkv.h"
#include "policies/allocators/importance.h"
#include "policies/allocators/measures.h"
#include "policies/allocators/table.h"

namespace depthkv {
namespace {

constexpr std::int64_t kCakeWindow = 32;
constexpr double kZigzagTau = 0.9;

// Of the metrics, those that only an importance.json holds.
constexpr std::array<std::string_view, 6> kOnlyMeasured{"kl", "score", "length", "infonce", "dime", "lidar"};

struct Depthkv {
  std::string who;  // in messages
  PerLayer given;
  std::string metric;
  ImportanceMap map;
  bool by_pruned = false;
  double floor = 0;
  double ceiling = 0;
  std::int64_t protect_middle = 0;
  bool narrow = false;
};

// Metrics in the order of HiddenScalar.
constexpr std::array<std::string_view, kHiddenScalars.size()> kScalars{"curvature", "curvature_code", "entropy",
                                                                       "effective_rank"};

std::int64_t take_stage(Params& params) {
  std::vector<std::string> names;
  names.reserve(kStages.size());
  for (const Stage stage : kStages) names.emplace_back(to_string(stage));
  const std::string name = params.take_choice("stage", std::string(to_string(Stage::att)), names);
  return std::find(names.begin(), names.end(), name) - names.begin();
}

// What depends on the layer's data alone.
void measure_by(LayerAllocator& allocator, const std::string& metric, std::int64_t stage) {
  const auto scalar = static_cast<std::size_t>(std::find(kScalars.begin(), kScalars.end(), metric) - kScalars.begin());
  if (scalar < kScalars.size()) {
    allocator.needs = needs({Feature::hidden});
    allocator.measure = [=](const LayerFeatures& layer, const Ops&) -> std::vector<double> {
      return {static_cast<double>(layer.hidden_scalars.row(stage, 0)[scalar])};
    };
  } else if (metric == "cosine") {
    allocator.needs = needs({Feature::cosines});
    allocator.measure = [](const LayerFeatures& layer, const Ops&) { return std::vector<double>{mean_cosine(layer)}; };
  } else if (metric == "cake") {
    allocator.needs = needs({Feature::window}, kCakeWindow);
    allocator.measure = [](const LayerFeatures& layer, const Ops&) -> std::vector<double> {
      const AttentionSpread spread = attention_spread(layer, kCakeWindow);
      return {spread.entropy * spread.variance};
    };
  }
}

bool by_curves(const Depthkv& how) {
  return how.given.values.empty() && (how.metric == "output_error" || how.metric == "mass");
}

// What is the same at every budget; empty where that is nothing.
std::vector<double> fixed_importance(const Depthkv& how, const LayerInput& input) {
  const std::size_t layers = input.shape.layers.size();
  std::vector<double> importance;
  if (!how.given.values.empty()) {
    how.given.expect(how.who, layers);
    return how.given.values;
  }
  if (by_curves(how)) return importance;
  for (std::size_t l = 0; l < layers; ++l) {
    importance.push_back(how.metric == "lmba"   ? minimal_entries(input.ranked(static_cast<int>(l)), kZigzagTau)
                         : how.metric == "none" ? 0
                                                : input.measured[l][0]);
  }
  return importance;
}

std::vector<double> ablated(const LayerInput& input, const std::string& metric, Budget budget) {
  const std::vector<std::int64_t> even = split_evenly(input, budget);
  std::vector<double> losses;
  for (std::size_t l = 0; l < even.size(); ++l)
    losses.push_back(input.price(static_cast<int>(l), Rows::observed,
                                 metric == "mass" ? Metric::mass : Metric::output_error, even[l]));
  return losses;
}

// By what is kept, or by what is cut off the layers' sizes.
std::vector<std::int64_t> share(const Limits& limits, std::vector<double> weights,
                                const std::vector<std::int64_t>& sizes, bool by_pruned, Budget budget) {
  constexpr double kTiny = 1e-200;
  for (std::size_t l = 0; l < sizes.size(); ++l)
    weights[l] = (by_pruned ? 1 / std::max(weights[l], kTiny) : weights[l]) * static_cast<double>(sizes[l]);
  if (!by_pruned) return share_out(budget.entries, weights, limits.floors, limits.caps);
  Limits cut;
  for (std::size_t l = 0; l < sizes.size(); ++l) {
    cut.floors.push_back(sizes[l] - limits.caps[l]);
    cut.caps.push_back(sizes[l] - limits.floors[l]);
  }
  const std::int64_t total = std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0}) - budget.entries;
  std::vector<std::int64_t> entries = share_out(total, weights, cut.floors, cut.caps);
  for (std::size_t l = 0; l < sizes.size(); ++l) entries[l] = sizes[l] - entries[l];
  return entries;
}

// How many layers stay whole.
std::int64_t middle_of(const Depthkv& how, const Limits& limits, const LayerInput& input, Budget budget) {
  if (how.protect_middle == 0) return 0;
  const std::int64_t widest = widest_middle(limits, budget);
  if (how.protect_middle <= widest) return how.protect_middle;
  if (how.narrow) return widest;
  const double keep = static_cast<double>(budget.entries) / static_cast<double>(input.shape.entries());
  throw InfeasibleBudget(
      fmt::format("{}: protect_middle={} of {} layers don't fit into keep {:.4g}, which holds {} whole at most, the "
                  "others at their least; protect fewer, keep more, or set narrow=1",
                  how.who, how.protect_middle, limits.caps.size(), keep, widest));
}

std::vector<std::int64_t> split(const Depthkv& how, const std::vector<double>& importance, const LayerInput& input,
                                Budget budget) {
  Limits limits = layer_limits(input, budget);
  const std::vector<std::int64_t> sizes = limits.caps;
  const std::vector<bool> whole = middle_block(middle_of(how, limits, input, budget), sizes.size());
  std::vector<double> open;  // of the layers outside the block
  for (std::size_t l = 0; l < whole.size(); ++l) {
    if (whole[l]) {
      limits.floors[l] = limits.caps[l];
    } else {
      open.push_back(importance[l]);
    }
  }
  open = weights_of(open, how.map);
  const std::vector<std::int64_t> even =
      share_out(budget.entries, std::vector<double>(sizes.begin(), sizes.end()), limits.floors, limits.caps);
  std::vector<double> weights;
  for (std::size_t l = 0, next = 0; l < whole.size(); ++l) {
    weights.push_back(whole[l] ? 1.0 : open[next++]);
    if (whole[l]) continue;  // floor and cap are one
    const auto part = static_cast<double>(even[l]);
    limits.floors[l] = std::clamp(static_cast<std::int64_t>(how.floor * part), limits.floors[l], even[l]);
    limits.caps[l] =
        std::clamp(static_cast<std::int64_t>(std::ceil(std::min(how.ceiling * part, 9e15))), even[l], limits.caps[l]);
  }
  return share(limits, weights, sizes, how.by_pruned, budget);
}

// Not a number where it wasn't measured.
double measured_importance(const LayerImportance& layer, const std::string& metric, std::int64_t stage) {
  if (metric == "kl") return layer.kl;
  if (metric == "output_error") return layer.output_error;
  if (metric == "score") return layer.score_drop;
  if (metric == "length") return 1 - layer.length_ratio;
  const auto found = layer.representations.find(metric);
  return found == layer.representations.end() ? kUnmeasured : found->second[static_cast<std::size_t>(stage)];
}

std::string take_metric(Params& params, const DepthkvDefaults& defaults) {
  const bool from_json = is_importance_file(params.take<std::string>("file", kNoFile));
  return params.take_choice("metric",
                            defaults.metric != nullptr ? defaults.metric
                            : from_json                ? "kl"
                                                       : "output_error",
                            {"output_error", "mass", "curvature", "curvature_code", "entropy", "effective_rank",
                             "cosine", "lmba", "cake", "none", "kl", "score", "length", "infonce", "dime", "lidar"});
}

}  // namespace

LayerAllocator depthkv_layers(Params& params, const DepthkvDefaults& defaults) {
  Depthkv how;
  how.who = std::string("layer allocator ") + defaults.name;
  how.metric = take_metric(params, defaults);
  const std::int64_t stage = take_stage(params);
  how.given =
      take_per_layer(params, how.who, "importance", -std::numeric_limits<double>::infinity(),
                     [&](const LayerImportance& layer) { return measured_importance(layer, how.metric, stage); });
  const bool measured = how.given.values.empty();
  how.map.sign = static_cast<double>(
      params.take_in("sign", std::int64_t{how.metric == "cosine" || how.metric == "infonce" ? -1 : 1}, -1, 1));
  how.map.normalise = params.take_choice("normalise", "zscore", {"zscore", "minmax", "rank", "none"});
  how.map.map = params.take_choice("map", "softmax", {"softmax", "shift", "inverse"});
  how.map.temperature = params.take_in("temperature", 2.0, 1e-3, 1e3);
  how.by_pruned = params.take_choice("target", "keep", {"keep", "prune"}) == "prune";
  how.floor = params.take_in("floor", 0.25, 0.0, 1.0);
  how.ceiling = params.take_in("ceiling", 4.0, 1.0, 1e6);
  how.protect_middle = params.take_in("protect_middle", defaults.protect_middle, 0, 1 << 20);
  const bool by_default = defaults.protect_middle > 0 && !params.is_given("protect_middle");
  how.narrow = params.take_in("narrow", std::int64_t{by_default}, 0, 1) == 1;
  LayerAllocator allocator;
  if (measured && std::ranges::find(kOnlyMeasured, how.metric) != kOnlyMeasured.end())
    allocator.unavailable = "needs what was measured of layers; set file=importance.json";
  allocator.observed_curves = by_curves(how);
  allocator.measured_on = how.given.measured_on();
  if (measured) measure_by(allocator, how.metric, stage);
  allocator.prepare = [=](const LayerInput& input) -> LayerSplit {
    return [&input, how, fixed = fixed_importance(how, input)](Budget budget) {
      return split(how, fixed.empty() ? ablated(input, how.metric, budget) : fixed, input, budget);
    };
  };
  return allocator;
}

LayerAllocator make_depthkv_layers(Params& params) { return depthkv_layers(params, {"depthkv"}); }

}  // namespace depthkv
