// SPDX-License-Identifier: Apache-2.0
// oracle: the split over layers with the smallest total loss on judged rows. A bound: it reads what a policy can't
// know. Each layer's loss is sampled on a grid of budgets; on the lower convex envelope of the samples taking the
// steepest pieces first is optimal. Where the curves aren't convex the envelope is a bound of the bound: the split
// found is then near the best, and never worse than the even one.
#include <algorithm>

#include "policies/allocators/allocators.h"
#include "policies/allocators/limits.h"

namespace depthkv {
namespace {

constexpr std::int64_t kGrid = 64;
constexpr std::int64_t kFew = 256;

struct Point {
  std::int64_t entries;
  double loss;
};

// A step along one layer's envelope.
struct Piece {
  std::size_t layer;
  std::int64_t entries;
  double gain;  // loss avoided per entry
};

// Lower convex envelope (monotone chain); entries rise from point to point.
std::vector<Point> envelope(const std::vector<Point>& points) {
  std::vector<Point> hull;
  for (const Point& p : points) {
    const auto above = [&](const Point& a, const Point& b) {
      return (b.loss - a.loss) * static_cast<double>(p.entries - a.entries) >=
             (p.loss - a.loss) * static_cast<double>(b.entries - a.entries);
    };
    while (hull.size() >= 2 && above(hull[hull.size() - 2], hull.back())) hull.pop_back();
    hull.push_back(p);
  }
  return hull;
}

// Budgets at which a layer is priced: all where they are few, else dense where budgets are small and losses steep.
std::vector<Point> sampled(const LayerInput& input, std::size_t layer, Metric metric, std::int64_t low,
                           std::int64_t high) {
  std::vector<Point> points;
  if (high - low <= kFew) {
    for (std::int64_t k = low; k <= high; ++k)
      points.push_back({k, input.price(static_cast<int>(layer), Rows::judged, metric, k)});
    return points;
  }
  for (std::int64_t i = 0; i <= kGrid; ++i) {
    const double share = static_cast<double>(i * i) / static_cast<double>(kGrid * kGrid);
    const std::int64_t entries =
        i == kGrid ? high : low + static_cast<std::int64_t>(share * static_cast<double>(high - low));
    if (!points.empty() && points.back().entries == entries) continue;
    points.push_back({entries, input.price(static_cast<int>(layer), Rows::judged, metric, entries)});
  }
  return points;
}

double total_loss(const LayerInput& input, Metric metric, const std::vector<std::int64_t>& entries) {
  double sum = 0;
  for (std::size_t l = 0; l < entries.size(); ++l)
    sum += input.price(static_cast<int>(l), Rows::judged, metric, entries[l]);
  return sum;
}

// The pieces of all layers' envelopes, steepest first.
std::vector<Piece> pieces_of(const LayerInput& input, Metric metric) {
  std::vector<Piece> pieces;
  for (std::size_t l = 0; l < input.shape.layers.size(); ++l) {
    const std::int64_t heads = input.shape.layers[l].kv_heads;
    const std::int64_t least = heads * std::min<std::int64_t>(1, input.shape.tokens);
    const std::vector<Point> hull = envelope(sampled(input, l, metric, least, heads * input.shape.tokens));
    for (std::size_t i = 1; i < hull.size(); ++i) {
      const std::int64_t step = hull[i].entries - hull[i - 1].entries;
      pieces.push_back({l, step, (hull[i - 1].loss - hull[i].loss) / static_cast<double>(step)});
    }
  }
  // Stable: equal gains go to the lower layer, and a layer's pieces stay in order.
  std::stable_sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) { return a.gain > b.gain; });
  return pieces;
}

std::vector<std::int64_t> steepest_first(const LayerInput& input, const std::vector<Piece>& pieces, Budget budget) {
  std::vector<std::int64_t> entries;
  std::int64_t left = budget.entries;
  for (const LayerShape& layer : input.shape.layers) {
    entries.push_back(layer.kv_heads * std::min<std::int64_t>(1, input.shape.tokens));
    left -= entries.back();
  }
  for (const Piece& piece : pieces) {
    const std::int64_t taken = std::min(left, piece.entries);
    entries[piece.layer] += taken;
    left -= taken;
  }
  return entries;
}

}  // namespace

LayerAllocator make_oracle_layers(Params& params) {
  const Metric metric = params.take_choice("metric", "output_error", {"output_error", "mass"}) == "mass"
                            ? Metric::mass
                            : Metric::output_error;
  LayerAllocator allocator;
  allocator.oracle = true;
  allocator.prepare = [=](const LayerInput& input) -> LayerSplit {
    return [&input, metric, pieces = pieces_of(input, metric)](Budget budget) {
      std::vector<std::int64_t> best = steepest_first(input, pieces, budget);
      std::vector<std::int64_t> even = split_evenly(input, budget);
      return total_loss(input, metric, best) <= total_loss(input, metric, even) ? best : even;
    };
  };
  return allocator;
}

}  // namespace depthkv
