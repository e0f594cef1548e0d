// SPDX-License-Identifier: Apache-2.0
// One sort for all heads, by Thrust: head, falling score and position packed into 64 bits. The same source is compiled
// for CUDA, and for the CPU by two other back ends of Thrust in tests.
#include <thrust/device_ptr.h>
#include <thrust/execution_policy.h>
#include <thrust/functional.h>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/sort.h>
#include <thrust/transform.h>
#include <thrust/transform_reduce.h>

#include <cstring>
#include <string>

#include "depthkv/error.h"
#include "kernels/device_lane.h"
#include "kernels/rank/rank.h"

#ifdef __CUDACC__
#include <thrust/system/cuda/execution_policy.h>
#define DEPTHKV_BOTH __host__ __device__
#else
#define DEPTHKV_BOTH
#endif

namespace depthkv::cuda {
namespace {

using Key = unsigned long long;
constexpr int kScoreBits = 32;
constexpr int kPositionBits = 22;

// What a sort of Thrust takes while it runs.
struct Scratch {
  using value_type = char;
  Lane* lane;
  char* allocate(std::ptrdiff_t bytes) { return lane->room<char>(static_cast<std::size_t>(bytes)); }
  void deallocate(char*, std::size_t) {}
};

auto policy(Scratch& scratch) {
#ifdef __CUDACC__
  return thrust::cuda::par_nosync(scratch).on(static_cast<cudaStream_t>(scratch.lane->stream()));
#else
  return thrust::device(scratch);  // the serial back end or TBB's, as CMake says
#endif
}

struct Scores {
  const float* values;  // [head][count]
  unsigned count;
  unsigned first;  // protected ones: first .. and from last on
  unsigned last;

  DEPTHKV_BOTH static Key falling(float score) {
    if (score == 0.0F) score = 0.0F;  // -0 and 0 are equal
    unsigned bits;
    memcpy(&bits, &score, sizeof bits);
    return (bits & 0x80000000U) != 0 ? bits : ~(bits | 0x80000000U);
  }
  // No number has a falling() as small as 0 or 1, which protected positions get.
  DEPTHKV_BOTH Key operator()(unsigned i) const {
    const unsigned head = i / count;
    const unsigned position = i % count;
    const Key score = position < first ? 0 : position >= last ? 1 : falling(values[i]);
    return (static_cast<Key>(head) << kScoreBits | score) << kPositionBits | position;
  }
};

struct PositionOf {
  DEPTHKV_BOTH unsigned operator()(Key key) const { return static_cast<unsigned>(key & ((1U << kPositionBits) - 1U)); }
};

struct WhereNan {
  const float* values;
  DEPTHKV_BOTH unsigned operator()(unsigned i) const { return values[i] != values[i] ? i : ~0U; }
};

[[noreturn]] void refuse(std::int64_t head, std::int64_t position) {
  throw Error("the score of KV head " + std::to_string(head) + ", position " + std::to_string(position) +
              " is not a number; the scorer or the trace is broken");
}

void rank_heads(Lane& lane, const View& scores, Protect protect, std::int64_t first_head, Ranking& ranking) {
  const auto n = static_cast<unsigned>(scores.columns);
  const auto first = static_cast<unsigned>(std::min<std::int64_t>(protect.first, n));
  const unsigned last = n - static_cast<unsigned>(std::min<std::int64_t>(protect.last, n - first));
  const auto count = static_cast<unsigned>(scores.heads) * n;
  const float* values = lane.upload(scores, n);
  Key* keys = lane.room<Key>(count);
  auto* order = lane.room<unsigned>(count);
  Scratch scratch{&lane};
  const auto on = policy(scratch);
  const thrust::counting_iterator<unsigned> begin(0);
  lane.wait();  // Thrust on the CPU knows no streams
  const unsigned nan =
      thrust::transform_reduce(on, begin, begin + count, WhereNan{values}, ~0U, thrust::minimum<unsigned>());
  if (nan != ~0U) refuse(first_head + nan / n, nan % n);
  thrust::transform(on, begin, begin + count, keys, Scores{values, n, first, last});
  thrust::sort(on, keys, keys + count);
  thrust::transform(on, keys, keys + count, order, PositionOf{});
  const auto found = lane.download(order, count);
  lane.wait();
  std::ranges::copy(found, ranking.head(first_head).data());
}

}  // namespace

Ranking rank(const View& scores, Protect protect) {
  Ranking ranking(scores.heads, scores.columns);
  if (scores.columns == 0) return ranking;
  constexpr std::int64_t kMostHeads = std::int64_t{1} << (64 - kScoreBits - kPositionBits);
  constexpr std::int64_t kMostTokens = std::int64_t{1} << kPositionBits;
  if (scores.columns > kMostTokens || scores.heads > kMostHeads)
    throw Error("CUDA: scores of " + std::to_string(scores.heads) + " heads and " + std::to_string(scores.columns) +
                " entries, expected at most " + std::to_string(kMostHeads) + " and " + std::to_string(kMostTokens) +
                "; use device: cpu");
  in_parts(scores.heads, 1, [&](Lane& lane, std::int64_t head, std::int64_t heads) {
    rank_heads(lane, scores.head_range(head, heads), protect, head, ranking);
  });
  return ranking;
}

}  // namespace depthkv::cuda
