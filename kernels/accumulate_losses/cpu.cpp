// SPDX-License-Identifier: Apache-2.0
// One walk along the ranking keeps the running sum of a v and prices every kept count. Rows of attention lie side by
// side, one in each lane, a few dimensions at a time, so that sums stay in registers, and a stretch of the ranking at a
// time, so that its values stay in the first-level cache for many rows.
//
// With u the sum over what is kept, m its weight and o the sum over all, the error is |u - m o|^2 / m^2. The walk keeps
// s = u - b o and prices |s + q o|^2, q = b - m, as |s|^2 + 2 q s o + q^2 |o|^2: two products for an entry and
// dimension, since s o follows from the values' products with o, which no ranking changes. b turns from 0 to 1 as soon
// as half of the attention is kept: s and q are small at both ends of the walk, and nothing large cancels.
#include <algorithm>
#include <array>
#include <numeric>
#include <vector>

#include "kernels/accumulate_losses/accumulate_losses.h"
#include "kernels/column_sums/column_sums.h"
#include "kernels/loops/loops.h"
#include "kernels/walk.h"

namespace depthkv::cpu {
namespace {

constexpr std::size_t kRowStride = 2 * kWalkRows;
constexpr std::size_t kGroups = 2;  // that take turns and stay in the second-level cache for all rankings
constexpr double kHalf = 0.5;       // of a row
constexpr double kAlmostAll = 0.9;

using Lanes = Lines<kWalkRows>;
using Order = std::span<const std::uint32_t>;

// Up to kWalkRows rows. Sums are [strip][kWalkWidth][kWalkRows].
struct Group {
  Scratch rows;                        // [T][2][kWalkRows]: attention, products of values and `full`
  std::array<double, kWalkRows> mass;  // of entries that can't be pruned
  Scratch sums;                        // over these
  Scratch full;                        // over all entries
  Lanes energy;
};

void products_of(std::span<const float> one, std::span<const float> other, Lanes& products) {
  loops().sum_products(one.data(), other.data(), one.size() / kWalkRows, products.data());
}

// One KV head's values, which any rows meet.
class Head {
 public:
  Head(const View& values, std::size_t open)
      : open_(open), values_(values), ascending_(static_cast<std::size_t>(values.rows)) {
    std::iota(ascending_.begin(), ascending_.end(), 0U);
  }

  std::size_t strips() const { return values_.strips(); }

  EntryWalk walk(const Group& group, std::size_t strip, Order order, std::size_t following) const {
    return {.weights = group.rows.data(),
            .weight_stride = kRowStride,
            .values = values_.strip(strip),
            .value_stride = values_.stride(),
            .order = order.data(),
            .entries = order.size(),
            .following = following};
  }

  // Reuses what the group has allocated.
  void fill(Group& group, std::span<const float* const> rows) const {
    const std::size_t entries = ascending_.size();
    group.rows.resize(entries * kRowStride);
    group.mass.fill(0);
    for (std::size_t r = 0; r < rows.size(); ++r)
      group.mass[r] = std::accumulate(rows[r] + open_, rows[r] + entries, 0.0);
    group.sums.assign(strips() * kSums, 0.0F);
    join_rows(rows, std::span(ascending_).subspan(open_), group.rows, group.sums);
    group.full = group.sums;
    join_rows(rows, std::span(ascending_).first(open_), group.rows, group.full);
    add_products(group);
    products_of(group.full, group.full, group.energy);
  }

 private:
  // Rows side by side, their sums added up while they are in the first-level cache.
  void join_rows(std::span<const float* const> rows, Order entries, Scratch& to, Scratch& sums) const {
    std::array<const float*, kWalkRows> from{};
    for (; !entries.empty(); entries = entries.subspan(std::min(kStretch, entries.size()))) {
      const std::size_t first = entries.front();
      for (std::size_t r = 0; r < rows.size(); ++r) from[r] = rows[r] + first;
      interleave_rows(std::span(from).first(rows.size()), std::min(kStretch, entries.size()),
                      to.data() + first * kRowStride, kRowStride);
      values_.add_stretch(to.data(), kRowStride, entries, sums.data());
    }
  }

  // Of values and the sums over all entries, a stretch at a time, as these were added up.
  void add_products(Group& group) const {
    for (std::size_t first = 0; first < open_; first += kStretch) {
      for (std::size_t strip = 0; strip < strips(); ++strip)
        loops().row_products(values_.strip(strip) + first * values_.stride(), values_.stride(),
                             std::min(kStretch, open_ - first), group.full.data() + strip * kSums, strip == 0,
                             group.rows.data() + first * kRowStride + kWalkRows, kRowStride);
    }
  }

  std::size_t open_;  // the first entries, which can be pruned
  PaddedValues values_;
  std::vector<std::uint32_t> ascending_;  // [T]
};

// A group of rows along a ranking.
class Walk {
 public:
  explicit Walk(const Head& head) : head_(head) {}

  void start(const Group& group, Order ranking) {
    group_ = &group;
    left_ = ranking.size();
    sums_ = group.sums;
    mass_ = group.mass;
    from_all_.fill(0);
    below_half_ = kWalkRows;
  }

  // Losses [entries][kWalkRows] += those before each entry, which then joins; they = those if `first`.
  void price(Order stretch, bool first, float* losses) {
    while (!stretch.empty()) {
      take_off();
      const std::size_t count = join_masses(stretch);
      price_part(stretch.first(count), first, losses);
      left_ -= count;
      stretch = stretch.subspan(count);
      losses += count * kWalkRows;
    }
  }

 private:
  // From rows of which more than half is kept.
  void take_off() {
    if (below_half_ == 0) return;
    Lanes passed{};
    for (std::size_t r = 0; r < kWalkRows; ++r)
      if (from_all_[r] == 0 && mass_[r] > kHalf) passed[r] = from_all_[r] = 1;
    const auto count = static_cast<std::size_t>(std::ranges::count(passed, 1.0F));
    if (count == 0) return;
    below_half_ -= count;
    for (std::size_t at = 0; at < sums_.size(); at += kWalkRows)
      for (std::size_t r = 0; r < kWalkRows; ++r) sums_[at + r] -= passed[r] * group_->full[at + r];
  }

  // How many entries' weights joined: all, or those before which a row passes the half that then comes close to all.
  std::size_t join_masses(Order entries) {
    const std::array<double, kWalkRows> before = mass_;
    const auto join = [&](std::size_t count) {
      loops().walk_masses(walk(0, entries.first(count)), from_all_.data(), mass_.data(), shares_.data());
    };
    join(entries.size());
    if (below_half_ == 0) return entries.size();
    std::size_t count = entries.size();
    for (std::size_t r = 0; r < kWalkRows; ++r) {
      if (from_all_[r] != 0 || mass_[r] < kAlmostAll) continue;
      while (count > 1 && -shares_[(count - 1) * kWalkRows + r] > kHalf) --count;
    }
    if (count < entries.size()) {
      mass_ = before;
      join(count);
    }
    return count;
  }

  void price_part(Order entries, bool first, float* losses) {
    Lanes product;
    products_of(sums_, group_->full, product);
    for (std::size_t strip = 0; strip < head_.strips(); ++strip)
      loops().walk_norms(walk(strip, entries), strip == 0, sums_.data() + strip * kSums, norms_.data());
    loops().walk_losses(walk(0, entries),
                        {.norms = norms_.data(),
                         .shares = shares_.data(),
                         .products = group_->rows.data() + kWalkRows,
                         .from_all = from_all_.data(),
                         .energy = group_->energy.data(),
                         .product = product.data()},
                        first, losses);
  }

  EntryWalk walk(std::size_t strip, Order entries) const {
    return head_.walk(*group_, strip, entries, left_ - entries.size());
  }

  const Head& head_;
  const Group* group_ = nullptr;
  std::size_t left_ = 0;  // entries of the ranking
  Scratch sums_;
  std::array<double, kWalkRows> mass_{};
  Lanes from_all_{};            // 1 where `full` has been taken off the sums
  std::size_t below_half_ = 0;  // rows where it hasn't
  Lines<kStretch * kWalkRows> shares_{};
  Lines<2 * kStretch * kWalkRows> norms_{};
};

// kGroups of rows along all rankings.
class Block {
 public:
  explicit Block(const Head& head) : walks_(kGroups, Walk(head)) {}

  Group& next() { return groups_[count_++]; }
  bool full() const { return count_ == kGroups; }
  bool empty() const { return count_ == 0; }

  // Adds to errors [kept].
  void price(Order ranking, std::span<double> errors) {
    for (std::size_t g = 0; g < count_; ++g) walks_[g].start(groups_[g], ranking);
    for (std::size_t at = 0; at < ranking.size(); at += kStretch) {
      const auto stretch = ranking.subspan(at, std::min(kStretch, ranking.size() - at));
      for (std::size_t g = 0; g < count_; ++g) walks_[g].price(stretch, g == 0, losses_.data());
      loops().add_losses(losses_.data(), stretch.size(), errors.data() + at);
    }
  }

  void clear() { count_ = 0; }

 private:
  std::array<Group, kGroups> groups_;
  std::size_t count_ = 0;
  std::vector<Walk> walks_;
  Lines<kStretch * kWalkRows> losses_{};
};

// What all rows together keep along a ranking; `received` [T] by each entry.
void add_mass(std::span<const double> received, Order ranking, std::span<double> masses) {
  double mass = std::accumulate(received.begin() + static_cast<std::ptrdiff_t>(ranking.size()), received.end(), 0.0);
  for (std::size_t k = 0; k < ranking.size(); ++k) {
    masses[k] += mass;
    mass += received[ranking[k]];
  }
}

}  // namespace

void accumulate_losses(const LossInput& input, std::span<LossCurves> curves) {
  if (curves.empty()) return;
  const Head head(input.values, input.rankings[0].size());
  Block block(head);
  double energy = 0;
  const auto price = [&] {
    for (std::size_t i = 0; i < curves.size(); ++i) block.price(input.rankings[i], curves[i].error);
    block.clear();
  };
  for_row_groups(input.attention, [&](std::span<const float* const> rows) {
    Group& group = block.next();
    head.fill(group, rows);
    for (const float o : group.full) energy += static_cast<double>(o) * static_cast<double>(o);
    if (block.full()) price();
  });
  if (!block.empty()) price();
  std::vector<double> received(static_cast<std::size_t>(input.attention.columns));
  for (std::int64_t h = 0; h < input.attention.heads; ++h) add_rows(input.attention.head_range(h, 1), received);
  const auto rows = input.attention.heads * input.attention.rows;
  for (std::size_t i = 0; i < curves.size(); ++i) {
    add_mass(received, input.rankings[i], curves[i].mass);
    curves[i].mass.back() += static_cast<double>(rows);
    curves[i].energy += energy;
    curves[i].rows += rows;
  }
}

}  // namespace depthkv::cpu
