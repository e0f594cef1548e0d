// SPDX-License-Identifier: Apache-2.0
// adakv: heads compete for a layer's budget by score.   Feng et al. 2024 (Ada-KV), arXiv:2407.11550
// The scores of all heads are pooled; m_g of the pool's best belong to head g. mode = blend (authors' code): head g
// gets (1 - alpha) m_g + alpha times the even share. mode = floor (kvpress): every head's best alpha times the even
// share stay, the pool decides the rest. Protected entries are outside the pool, as the authors' window is. Equal
// scores go to the entry with fewer better ones in its head, then to the lower head, so that forced windows of all
// heads come in side by side. Sums are exact; the authors' are rounded. normalise (off, as in the authors' scripts):
// before pooling a head's scores are multiplied by the share of its total score, outside the window, that its best even
// share of the budget holds; negative scores count 0 in both, forced entries aren't scaled.
#include <algorithm>
#include <numeric>

#include "depthkv/policy.h"
#include "policies/allocators/limits.h"
#include "policies/allocators/measures.h"
#include "policies/allocators/sorted_lists.h"

namespace depthkv {
namespace {

// All heads' unprotected entries, best first. Says how many of the best m belong to each head.
class Pool {
 public:
  Pool(const HeadInput& input, std::int64_t skip) : heads_(static_cast<std::size_t>(input.scores.heads)) {
    const std::int64_t tokens = input.scores.columns;
    const std::size_t total = heads_ * static_cast<std::size_t>(tokens - skip);
    owner_.reserve(total);
    std::vector<std::int64_t> at(heads_, 0);
    std::vector<std::vector<float>> sorted;
    for (std::int64_t g = 0; g < input.scores.heads; ++g) sorted.push_back(falling_scores(input, g, skip));
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

// The same for scores multiplied by how concentrated their heads are, which depends on the budget.
class WeighedPool {
 public:
  WeighedPool(const HeadInput& input, std::int64_t skip) {
    for (std::int64_t g = 0; g < input.scores.heads; ++g) {
      std::vector<float> scores = falling_scores(input, g, skip);
      forced_.push_back(std::count_if(scores.begin(), scores.end(), [](float score) { return score >= kForced; }));
      std::vector<double>& mass = mass_.emplace_back(1, 0.0);
      for (const float score : open_scores(input, g))
        mass.push_back(mass.back() + std::max(0.0, static_cast<double>(score)));
      lists_.add(scores);
    }
  }

  // Factors at a capacity per head.
  std::vector<double> factors(std::int64_t capacity) const {
    std::vector<double> all;
    for (std::size_t g = 0; g < mass_.size(); ++g) {
      const auto most = static_cast<std::int64_t>(mass_[g].size()) - 1;
      const std::int64_t count = std::clamp<std::int64_t>(capacity - forced_[g], 0, most);
      all.push_back(mass_[g].back() > 0 ? mass_[g][static_cast<std::size_t>(count)] / mass_[g].back() : 1.0);
    }
    return all;
  }

  std::vector<std::int64_t> best(std::int64_t m, const std::vector<double>& factors) const {
    return lists_.best(m, factors);
  }

 private:
  SortedLists lists_;
  std::vector<std::int64_t> forced_;
  std::vector<std::vector<double>> mass_;  // of a head's best k open entries
};

// How many of the pool's best m entries belong to each head.
using Best = std::function<std::vector<std::int64_t>(std::int64_t m)>;

std::vector<std::int64_t> blend(const Best& best, std::int64_t entries, const HeadSize& size, double alpha) {
  const auto count = static_cast<std::int64_t>(size.heads);
  const std::int64_t open = entries - count * size.skip;
  std::vector<double> weights;
  for (const std::int64_t m : best(open))
    weights.push_back((1 - alpha) * static_cast<double>(m) +
                      alpha * static_cast<double>(open) / static_cast<double>(count));
  return share_beyond_protected(size, entries, weights);
}

std::vector<std::int64_t> with_floor(const Best& best, std::int64_t entries, const HeadSize& size, double alpha) {
  const std::int64_t even = entries / static_cast<std::int64_t>(size.heads);
  const std::int64_t least = std::max(
      {size.skip, static_cast<std::int64_t>(alpha * static_cast<double>(even)), std::min<std::int64_t>(1, even)});
  const auto kept_at = [&](std::int64_t m) {
    std::vector<std::int64_t> kept = best(m);
    for (std::int64_t& k : kept) k = std::max(least, k + size.skip);
    return kept;
  };
  // The total rises by at most one from each m to the next, so the smallest m that reaches the budget meets it exactly.
  std::int64_t low = 0;
  std::int64_t high = static_cast<std::int64_t>(size.heads) * (size.tokens - size.skip);
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
  const bool normalise = params.take("normalise", false);
  HeadAllocator allocator;
  allocator.prepare = [=](const HeadInput& input) -> HeadSplit {
    const HeadSize size = size_of(input);
    const auto split = [=](const Best& best, std::int64_t entries) {
      return blended ? blend(best, entries, size, alpha) : with_floor(best, entries, size, alpha);
    };
    const auto heads = static_cast<std::int64_t>(size.heads);
    const auto too_few = [=](std::int64_t entries) { return entries < heads * size.skip; };
    if (!normalise) {
      return [=, pool = Pool(input, size.skip)](std::int64_t entries) {
        if (too_few(entries)) return split_evenly(size, entries);
        return split([&](std::int64_t m) { return pool.best(m); }, entries);
      };
    }
    return [=, pool = WeighedPool(input, size.skip)](std::int64_t entries) {
      if (too_few(entries)) return split_evenly(size, entries);
      const std::vector<double> factors = pool.factors(entries / heads - size.skip);
      return split([&](std::int64_t m) { return pool.best(m, factors); }, entries);
    };
  };
  return allocator;
}

}  // namespace depthkv
