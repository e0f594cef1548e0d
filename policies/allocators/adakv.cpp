// SPDX-License-Identifier: Apache-2.0
// adakv: heads compete for a layer's budget by score.   Feng et al. 2024 (Ada-KV), arXiv:2407.11550
// The scores of all heads are pooled; m_g of the pool's best belong to head g. mode = blend (authors' code): head g
// gets (1 - alpha) m_g + alpha times the even share. mode = floor (kvpress): every head's best alpha times the even
// share stay, the pool decides the rest. Protected entries are outside the pool, as the authors' window is. Equal
// scores go to the entry with fewer better ones in its head, then to the lower head, so that forced windows of all
// heads come in side by side. Sums are exact; the authors' are rounded.
#include <algorithm>
#include <functional>
#include <numeric>

#include "depthkv/policy.h"

namespace depthkv {
namespace {

// Each head's unprotected scores, falling. A ranking of two stages (structure critical) has its entries in another
// order; what heads compete by are the scores.
std::vector<std::vector<float>> scores_of(const HeadInput& input, std::int64_t skip) {
  std::vector<std::vector<float>> sorted(static_cast<std::size_t>(input.scores.heads));
  for (std::size_t g = 0; g < sorted.size(); ++g) {
    const auto head = static_cast<std::int64_t>(g);
    for (const std::uint32_t j : input.ranking->head(head).subspan(static_cast<std::size_t>(skip)))
      sorted[g].push_back(input.scores.row(head, 0)[j]);
    std::ranges::sort(sorted[g], std::greater<>());
  }
  return sorted;
}

// All heads' unprotected entries, best first. Says how many of the best m belong to each head.
class Pool {
 public:
  Pool(const HeadInput& input, std::int64_t skip) : heads_(static_cast<std::size_t>(input.scores.heads)) {
    const std::int64_t tokens = input.scores.columns;
    const std::size_t total = heads_ * static_cast<std::size_t>(tokens - skip);
    owner_.reserve(total);
    std::vector<std::int64_t> at(heads_, 0);
    const std::vector<std::vector<float>> sorted = scores_of(input, skip);
    const auto score = [&](std::size_t g) { return sorted[g][static_cast<std::size_t>(at[g])]; };
    while (owner_.size() < total) {
      std::size_t best = heads_;
      for (std::size_t g = 0; g < heads_; ++g) {
        if (at[g] == tokens - skip) continue;
        if (best == heads_ || score(g) > score(best) || (score(g) == score(best) && at[g] < at[best])) best = g;
      }
      if (owner_.size() % kStride == 0) {
        for (std::size_t g = 0; g < heads_; ++g) marks_.push_back(at[g]);
      }
      owner_.push_back(static_cast<std::uint32_t>(best));
      ++at[best];
    }
    for (std::size_t g = 0; g < heads_; ++g) marks_.push_back(at[g]);
  }

  std::int64_t size() const { return static_cast<std::int64_t>(owner_.size()); }

  std::vector<std::int64_t> best(std::int64_t m) const {
    const auto count = static_cast<std::size_t>(m);
    const std::size_t mark = count / kStride;
    const auto from = marks_.begin() + static_cast<std::ptrdiff_t>(mark * heads_);
    if (count == owner_.size()) return {marks_.end() - static_cast<std::ptrdiff_t>(heads_), marks_.end()};
    std::vector<std::int64_t> counts(from, from + static_cast<std::ptrdiff_t>(heads_));
    for (std::size_t i = mark * kStride; i < count; ++i) ++counts[owner_[i]];
    return counts;
  }

 private:
  static constexpr std::size_t kStride = 256;  // entries between stored counts

  std::size_t heads_;
  std::vector<std::uint32_t> owner_;
  std::vector<std::int64_t> marks_;
};

std::vector<std::int64_t> blend(const Pool& pool, std::int64_t entries, std::int64_t skip, std::int64_t tokens,
                                std::size_t heads, double alpha) {
  const auto count = static_cast<std::int64_t>(heads);
  const std::int64_t open = entries - count * skip;
  const std::vector<std::int64_t> won = pool.best(open);
  std::vector<double> weights;
  for (const std::int64_t m : won)
    weights.push_back((1 - alpha) * static_cast<double>(m) +
                      alpha * static_cast<double>(open) / static_cast<double>(count));
  const std::int64_t least = skip == 0 && open >= count ? 1 : 0;
  std::vector<std::int64_t> kept = share_out(open, weights, std::vector<std::int64_t>(heads, least),
                                             std::vector<std::int64_t>(heads, tokens - skip));
  for (std::int64_t& k : kept) k += skip;
  return kept;
}

std::vector<std::int64_t> with_floor(const Pool& pool, std::int64_t entries, std::int64_t skip, std::size_t heads,
                                     double alpha) {
  const std::int64_t even = entries / static_cast<std::int64_t>(heads);
  const std::int64_t least =
      std::max({skip, static_cast<std::int64_t>(alpha * static_cast<double>(even)), std::min<std::int64_t>(1, even)});
  const auto kept_at = [&](std::int64_t m) {
    std::vector<std::int64_t> kept = pool.best(m);
    for (std::int64_t& k : kept) k = std::max(least, k + skip);
    return kept;
  };
  // The total rises by at most one from each m to the next, so the smallest m that reaches the budget meets it exactly.
  std::int64_t low = 0;
  std::int64_t high = pool.size();
  while (low < high) {
    const std::int64_t middle = (low + high) / 2;
    const std::vector<std::int64_t> kept = kept_at(middle);
    if (std::accumulate(kept.begin(), kept.end(), std::int64_t{0}) < entries) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return kept_at(low);
}

}  // namespace

HeadAllocator make_adakv_heads(Params& params) {
  const bool blended = params.take_choice("mode", "blend", {"blend", "floor"}) == "blend";
  const double alpha = params.take_in("alpha", 0.2, 0.0, 1.0);
  HeadAllocator allocator;
  allocator.prepare = [=](const HeadInput& input) -> HeadSplit {
    const std::int64_t tokens = input.scores.columns;
    const auto heads = static_cast<std::size_t>(input.scores.heads);
    const std::int64_t skip = std::min(tokens, input.protect.first + input.protect.last);
    return [=, pool = Pool(input, skip)](std::int64_t entries) {
      if (entries < static_cast<std::int64_t>(heads) * skip) {  // not even the protected ones fit
        return share_out(entries, std::vector<double>(heads, 1.0), std::vector<std::int64_t>(heads, 0),
                         std::vector<std::int64_t>(heads, tokens));
      }
      return blended ? blend(pool, entries, skip, tokens, heads, alpha) : with_floor(pool, entries, skip, heads, alpha);
    };
  };
  return allocator;
}

}  // namespace depthkv
