// SPDX-License-Identifier: Apache-2.0
// d2o: less where heads differ little in how unevenly they attend.   Wan et al. 2024 (D2O), arXiv:2406.13035
// F = mean over a layer's query heads of the variance over positions of attention received, min-max normalised over
// these heads; layers share the budget by softmax(-F), each between `lo` of its entries and all of them. The layers
// `exempt` (of those that can be pruned; negative: from the end) are kept whole. The authors add them on top of the
// budget; here they come out of it: they are whole as long as the others keep `lo` of theirs, and what they must give
// up they give up evenly. The authors' clamping breaks the sum, and they prune from the first decoded token on; here
// the sum is exact and pruning happens at the cut.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "depthkv/error.h"
#include "depthkv/policy.h"
#include "policies/allocators/limits.h"

namespace depthkv {
namespace {

// What a split needs of a group of layers.
struct Group {
  std::vector<std::size_t> layers;
  std::vector<double> weights;
  Limits limits;

  void add(std::size_t layer, double weight, std::int64_t floor, std::int64_t cap) {
    layers.push_back(layer);
    weights.push_back(weight);
    limits.floors.push_back(floor);
    limits.caps.push_back(cap);
  }
  std::int64_t floor() const { return std::accumulate(limits.floors.begin(), limits.floors.end(), std::int64_t{0}); }
  std::int64_t cap() const { return std::accumulate(limits.caps.begin(), limits.caps.end(), std::int64_t{0}); }
  void share(std::int64_t entries, std::vector<std::int64_t>& result) const {
    const std::vector<std::int64_t> shares = share_out(entries, weights, limits.floors, limits.caps);
    for (std::size_t i = 0; i < layers.size(); ++i) result[layers[i]] = shares[i];
  }
};

// F of one layer.
double unevenness(const LayerFeatures& layer) {
  std::vector<double> variances;
  for (std::int64_t h = 0; h < layer.column_sums.heads; ++h) {
    const auto sums = layer.column_sums.row(h, 0);
    const auto count = static_cast<double>(sums.size());
    const double middle = std::accumulate(sums.begin(), sums.end(), 0.0) / count;
    double squares = 0;
    for (const float sum : sums) squares += (static_cast<double>(sum) - middle) * (static_cast<double>(sum) - middle);
    variances.push_back(squares / count);
  }
  const auto [low, high] = std::minmax_element(variances.begin(), variances.end());
  if (*low == *high) return 0;
  double total = 0;
  for (const double variance : variances) total += (variance - *low) / (*high - *low);
  return total / static_cast<double>(variances.size());
}

std::vector<bool> marked(const std::vector<double>& exempt, std::size_t layers) {
  std::vector<bool> marks(layers, false);
  const auto count = static_cast<double>(layers);
  for (const double layer : exempt) {
    const double at = layer < 0 ? layer + count : layer;
    if (at >= 0 && at < count) marks[static_cast<std::size_t>(at)] = true;
  }
  return marks;
}

std::vector<std::int64_t> split(const LayerInput& input, const std::vector<bool>& exempt, double lo, Budget budget) {
  const Limits limits = layer_limits(input, budget);
  const auto grouped = [&](double share) {
    std::pair<Group, Group> groups;  // exempt, others
    for (std::size_t l = 0; l < exempt.size(); ++l) {
      const auto size = static_cast<double>(limits.caps[l]);
      const auto least = std::max(limits.floors[l], static_cast<std::int64_t>(std::ceil(share * size)));
      if (exempt[l]) {
        groups.first.add(l, size, limits.floors[l], limits.caps[l]);
      } else {
        groups.second.add(l, size * std::exp(-input.measured[l][0]), least, limits.caps[l]);
      }
    }
    return groups;
  };
  auto [whole, others] = grouped(lo);
  if (whole.floor() + others.floor() > budget.entries) std::tie(whole, others) = grouped(0);
  const std::int64_t to_whole = std::min(whole.cap(), budget.entries - others.floor());
  std::vector<std::int64_t> entries(exempt.size());
  whole.share(to_whole, entries);
  others.share(budget.entries - to_whole, entries);
  return entries;
}

}  // namespace

LayerAllocator make_d2o_layers(Params& params) {
  const auto exempt = params.take<std::vector<double>>("exempt", {0, 1, -1});
  const double lo = params.take_in("lo", 0.01, 0.0, 1.0);
  for (const double layer : exempt) {
    if (layer != std::floor(layer))
      throw InputError(fmt::format("layer allocator d2o: exempt has {}, expected whole numbers: layers", layer));
  }
  LayerAllocator allocator;
  allocator.needs = needs({Feature::column_sums});
  allocator.measure = [](const LayerFeatures& layer, const Ops&) { return std::vector<double>{unevenness(layer)}; };
  allocator.prepare = [=](const LayerInput& input) -> LayerSplit {
    return [&input, lo, whole = marked(exempt, input.shape.layers.size())](Budget budget) {
      return split(input, whole, lo, budget);
    };
  };
  return allocator;
}

}  // namespace depthkv
