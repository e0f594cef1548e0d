// SPDX-License-Identifier: Apache-2.0
#include "policies/allocators/envelope.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <utility>

namespace depthkv {
namespace {

constexpr std::int64_t kGrid = 64;
constexpr std::int64_t kFew = 256;
constexpr std::size_t kMoves = 16;  // of a unit with one size of step, on average

std::vector<std::int64_t> grid(std::int64_t low, std::int64_t high) {
  std::vector<std::int64_t> entries;
  if (high - low <= kFew) {
    for (std::int64_t k = low; k <= high; ++k) entries.push_back(k);
    return entries;
  }
  for (std::int64_t i = 0; i <= kGrid; ++i) {
    const double share = static_cast<double>(i * i) / static_cast<double>(kGrid * kGrid);
    const std::int64_t k = i == kGrid ? high : low + static_cast<std::int64_t>(share * static_cast<double>(high - low));
    if (entries.empty() || entries.back() != k) entries.push_back(k);
  }
  return entries;
}

// A split, and what each unit loses where it is and a step to either side of that.
class Exchange {
 public:
  Exchange(std::vector<std::int64_t> split, const std::vector<Curve>& curves, const LayerPrice& price)
      : split_(std::move(split)), curves_(curves), price_(price), losses_(split_.size()) {
    for (std::size_t u = 0; u < split_.size(); ++u) losses_[u].here = price_(u, split_[u]);
  }

  // Bounded, since on curves that aren't convex it may go on for long.
  void run(std::int64_t step) {
    for (std::size_t u = 0; u < split_.size(); ++u) {
      losses_[u].below = at(u, split_[u] - step);
      losses_[u].above = at(u, split_[u] + step);
    }
    for (std::size_t moves = 0; moves < kMoves * split_.size(); ++moves) {
      const auto from = std::ranges::min_element(losses_, {}, &Losses::by_giving);
      const auto to = std::ranges::max_element(losses_, {}, &Losses::by_taking);
      if (from == to || !(to->by_taking() > from->by_giving())) return;
      const auto giver = static_cast<std::size_t>(from - losses_.begin());
      const auto taker = static_cast<std::size_t>(to - losses_.begin());
      split_[giver] -= step;
      split_[taker] += step;
      *from = {at(giver, split_[giver] - step), from->below, from->here};
      *to = {to->here, to->above, at(taker, split_[taker] + step)};
    }
  }

  const std::vector<std::int64_t>& split() const { return split_; }

 private:
  struct Losses {
    double below = 0;
    double here = 0;
    double above = 0;
    double by_giving() const { return below - here; }
    double by_taking() const { return here - above; }
  };

  // Infinite beyond the curve's ends: nobody goes there.
  double at(std::size_t unit, std::int64_t entries) const {
    const Curve& curve = curves_[unit];
    if (entries < curve.front().entries || entries > curve.back().entries)
      return std::numeric_limits<double>::infinity();
    return price_(unit, entries);
  }

  std::vector<std::int64_t> split_;
  const std::vector<Curve>& curves_;
  const LayerPrice& price_;
  std::vector<Losses> losses_;
};

}  // namespace

// Andrew's monotone chain.
Curve envelope(const Curve& points) {
  Curve hull;
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

SteepestFirst::SteepestFirst(const std::vector<Curve>& curves) {
  std::vector<std::int64_t> at;
  std::int64_t given = 0;
  for (std::size_t u = 0; u < curves.size(); ++u) {
    const Curve hull = envelope(curves[u]);
    at.push_back(hull[0].entries);
    given += at.back();
    for (std::size_t i = 1; i < hull.size(); ++i) {
      const std::int64_t step = hull[i].entries - hull[i - 1].entries;
      pieces_.push_back({u, step, (hull[i - 1].loss - hull[i].loss) / static_cast<double>(step)});
    }
  }
  // Stable: a unit's pieces stay in order.
  std::stable_sort(pieces_.begin(), pieces_.end(), [](const Piece& a, const Piece& b) { return a.gain > b.gain; });
  for (std::size_t i = 0; i <= pieces_.size(); ++i) {
    if (i % kStride == 0) {
      before_.push_back(given);
      marks_.push_back(at);
    }
    if (i == pieces_.size()) break;
    at[pieces_[i].unit] += pieces_[i].entries;
    given += pieces_[i].entries;
  }
}

std::vector<std::int64_t> SteepestFirst::split(std::int64_t entries) const {
  const auto mark =
      static_cast<std::size_t>(std::upper_bound(before_.begin() + 1, before_.end(), entries) - before_.begin() - 1);
  std::vector<std::int64_t> kept = marks_[mark];
  std::int64_t left = entries - before_[mark];
  for (std::size_t i = mark * kStride; i < pieces_.size() && left > 0; ++i) {
    const std::int64_t taken = std::min(left, pieces_[i].entries);
    kept[pieces_[i].unit] += taken;
    left -= taken;
  }
  return kept;
}

std::vector<Curve> priced(const LayerInput& input, std::int64_t least_per_head, const LayerPrice& price) {
  std::vector<Curve> curves;
  for (std::size_t l = 0; l < input.shape.layers.size(); ++l) {
    const std::int64_t heads = input.shape.layers[l].kv_heads;
    Curve curve;
    for (const std::int64_t k :
         grid(heads * std::min(least_per_head, input.shape.tokens), heads * input.shape.tokens)) {
      curve.push_back({k, price(l, k)});
      if (std::isnan(curve.back().loss)) return {};
    }
    curves.push_back(std::move(curve));
  }
  return curves;
}

std::vector<std::int64_t> exchanged(std::vector<std::int64_t> split, const std::vector<Curve>& curves,
                                    const LayerPrice& price) {
  std::int64_t widest = 1;
  for (const Curve& curve : curves)
    for (std::size_t i = 1; i < curve.size(); ++i) widest = std::max(widest, curve[i].entries - curve[i - 1].entries);
  Exchange exchange(std::move(split), curves, price);
  for (auto step = static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(widest))); step > 0; step /= 2)
    exchange.run(step);
  return exchange.split();
}

}  // namespace depthkv
