// SPDX-License-Identifier: Apache-2.0
// A stable radix sort per head of the scores' bits, made monotone and inverted, from the smallest on: digits from the
// lowest up, entries starting out in rising position, so that equal scores stay so. As many digits as the scores' range
// has.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <utility>

#include "depthkv/error.h"
#include "kernels/rank/rank.h"

namespace depthkv::cpu {
namespace {

constexpr int kMostDigits = 4;
constexpr int kWidest = 12;            // bits of a digit: two tables of counts fit into the first-level cache
constexpr int kWidestOfFew = 8;        // adding up large tables would take longer than sorting few entries
constexpr std::size_t kFew = 1 << 11;  // entries
constexpr std::size_t kBuckets = std::size_t{1} << kWidest;
static_assert(kMostDigits * kWidestOfFew >= 32);

struct Entry {
  std::uint32_t bits;
  std::uint32_t position;
};

// Rises as the score falls.
std::uint32_t descending_bits(float score) {
  const auto bits = std::bit_cast<std::uint32_t>(score + 0.0F);  // -0 and 0 are equal
  const auto sign = static_cast<std::uint32_t>(static_cast<std::int32_t>(bits) >> 31);
  return bits ^ (~sign & 0x7fffffffU);
}

class Sorter {
 public:
  explicit Sorter(std::size_t most)
      : entries_(std::make_unique_for_overwrite<Entry[]>(most)),
        other_(std::make_unique_for_overwrite<Entry[]>(most)) {}

  // The positions first .. first + score.size() - 1 by falling score.
  void sort(std::span<const float> score, std::uint32_t first, std::uint32_t* out) {
    std::uint32_t least = std::numeric_limits<std::uint32_t>::max();
    std::uint32_t most = 0;
    for (const float x : score) {
      const std::uint32_t bits = descending_bits(x);
      least = std::min(least, bits);
      most = std::max(most, bits);
    }
    const int range = score.empty() ? 0 : std::bit_width(most - least);
    const int widest = score.size() < kFew ? kWidestOfFew : kWidest;
    const int digits = std::max(1, (range + widest - 1) / widest);
    constexpr std::array<void (Sorter::*)(const Scores&, int, std::uint32_t*), kMostDigits> kSorts{
        &Sorter::sort_by<1>, &Sorter::sort_by<2>, &Sorter::sort_by<3>, &Sorter::sort_by<4>};
    (this->*kSorts[static_cast<std::size_t>(digits - 1)])({score, least, first}, (range + digits - 1) / digits, out);
  }

 private:
  struct Scores {
    std::span<const float> score;
    std::uint32_t least;  // of their bits
    std::uint32_t first;  // position

    Entry operator[](std::size_t i) const {
      return {descending_bits(score[i]) - least, first + static_cast<std::uint32_t>(i)};
    }
  };

  template <std::size_t Digits>
  void sort_by(const Scores& scores, int width, std::uint32_t* out) {
    const std::size_t count = scores.score.size();
    count_digits<Digits>(scores, width);
    const auto place = [this, width, mask = (1U << width) - 1](const Entry& entry, std::size_t digit) {
      return counts_[digit][entry.bits >> (static_cast<int>(digit) * width) & mask]++;
    };
    if constexpr (Digits == 1) {
      for (std::size_t i = 0; i < count; ++i) out[place(scores[i], 0)] = scores[i].position;
    } else {
      Entry* from = entries_.get();
      Entry* to = other_.get();
      for (std::size_t i = 0; i < count; ++i) from[place(scores[i], 0)] = scores[i];
      for (std::size_t digit = 1; digit + 1 < Digits; ++digit) {
        for (std::size_t i = 0; i < count; ++i) to[place(from[i], digit)] = from[i];
        std::swap(from, to);
      }
      for (std::size_t i = 0; i < count; ++i) out[place(from[i], Digits - 1)] = from[i].position;
    }
  }

  // How many entries have each digit, then where the first of them goes.
  template <std::size_t Digits>
  void count_digits(const Scores& scores, int width) {
    const std::size_t buckets = std::size_t{1} << width;
    for (std::size_t digit = 0; digit < Digits; ++digit) std::fill_n(counts_[digit].begin(), buckets, 0U);
    for (std::size_t i = 0; i < scores.score.size(); ++i) {
      std::size_t bits = scores[i].bits;
      for (std::size_t digit = 0; digit < Digits; ++digit, bits >>= width) ++counts_[digit][bits & (buckets - 1)];
    }
    for (std::size_t digit = 0; digit < Digits; ++digit) {
      std::uint32_t before = 0;
      for (std::size_t b = 0; b < buckets; ++b) before += std::exchange(counts_[digit][b], before);
    }
  }

  std::unique_ptr<Entry[]> entries_;
  std::unique_ptr<Entry[]> other_;
  std::array<std::array<std::uint32_t, kBuckets>, kMostDigits> counts_;
};

void check_scores(std::span<const float> score, std::int64_t head) {
  std::uint32_t bad = 0;
  for (const float x : score) bad |= static_cast<std::uint32_t>(x != x);
  if (bad == 0) return;
  const auto at = std::find_if(score.begin(), score.end(), [](float x) { return std::isnan(x); }) - score.begin();
  throw Error("the score of KV head " + std::to_string(head) + ", position " + std::to_string(at) +
              " is not a number; the scorer or the trace is broken");
}

}  // namespace

Ranking rank(const View& scores, Protect protect) {
  const std::int64_t n = scores.columns;
  const std::int64_t first = std::min(protect.first, n);
  const std::int64_t last = std::min(protect.last, n - first);
  Ranking ranking(scores.heads, n);
  Sorter sorter(static_cast<std::size_t>(n - first - last));
  for (std::int64_t g = 0; g < scores.heads; ++g) {
    const auto score = scores.row(g, 0);
    check_scores(score, g);
    auto at = ranking.head(g).data();
    for (std::int64_t j = 0; j < first; ++j) *at++ = static_cast<std::uint32_t>(j);
    for (std::int64_t j = n - last; j < n; ++j) *at++ = static_cast<std::uint32_t>(j);
    sorter.sort(score.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(n - first - last)),
                static_cast<std::uint32_t>(first), at);
  }
  return ranking;
}

}  // namespace depthkv::cpu
