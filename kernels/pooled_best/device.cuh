// SPDX-License-Identifier: Apache-2.0
// Device code of pooled_best: the CPU's search, a block for all lists, lists shared out to its threads.
#pragma once
#include <cfloat>

#include "kernels/block_scan.cuh"
#include "kernels/numbers.cuh"

namespace depthkv::cuda {

struct PoolBlock {
  const float* scores;
  const long long* begins;  // [lists + 1]
  const long long* costs;   // [lists]
  const double* factors;    // [lists], or null
  int lists;
  long long longest;  // items of a list
  float unscaled;
  long long most;
  long long entries;
};

// Finite floats as integers of the same order.
__device__ inline unsigned rising_key(float x) {
  const unsigned bits = bits_of_float(x);
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}
__device__ inline float of_rising_key(unsigned key) {
  return float_of_bits((key & 0x80000000U) != 0 ? key & 0x7fffffffU : ~key);
}

// How many items of a list are better than a threshold, or as good.
__device__ inline long long items_above(const PoolBlock& pool, int list, float threshold, bool or_equal) {
  const float* scores = pool.scores + pool.begins[list];
  long long low = 0;
  long long high = pool.begins[list + 1] - pool.begins[list];
  if (pool.most < high) high = pool.most;
  while (low < high) {
    const long long middle = (low + high) / 2;
    float score = scores[middle];
    if (pool.factors != nullptr && score < pool.unscaled)
      score = static_cast<float>(static_cast<double>(score) * pool.factors[list]);
    if (or_equal ? score >= threshold : score > threshold) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// value(list) added up over all lists, in every thread.
template <class Value>
__device__ long long over_lists(const PoolBlock& pool, long long (&warps)[kScanWarps], Value value) {
  long long sum = 0;
  for (int list = static_cast<int>(threadIdx.x); list < pool.lists; list += kScanThreads) sum += value(list);
  return scan_block(sum, warps).all;
}

__device__ inline long long between(long long x, long long low, long long high) {
  return x < low ? low : x > high ? high : x;
}

// One block. better [lists] and equal [lists] are scratch, taken [lists] is what comes out.
static __global__ void __launch_bounds__(kScanThreads)
    pooled_best_kernel(PoolBlock pool, long long* better, long long* equal, long long* taken) {
  DEPTHKV_SHARED(long long[kScanWarps], warps);
  unsigned low = rising_key(-FLT_MAX);
  unsigned high = rising_key(FLT_MAX);
  while (low < high) {
    const unsigned middle = low + (high - low) / 2;
    const float threshold = of_rising_key(middle);
    const long long cost =
        over_lists(pool, warps, [&](int list) { return items_above(pool, list, threshold, false) * pool.costs[list]; });
    if (cost <= pool.entries) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  // A thread reads back only what it wrote itself.
  for (int list = static_cast<int>(threadIdx.x); list < pool.lists; list += kScanThreads) {
    better[list] = items_above(pool, list, of_rising_key(low), false);
    equal[list] = items_above(pool, list, of_rising_key(low), true);
  }
  const auto cost_up_to = [&](long long place) {
    return over_lists(pool, warps,
                      [&](int list) { return between(place, better[list], equal[list]) * pool.costs[list]; });
  };
  long long place = 0;
  long long beyond = pool.longest;
  while (place < beyond) {
    const long long middle = (place + beyond + 1) / 2;
    if (cost_up_to(middle) <= pool.entries) {
      place = middle;
    } else {
      beyond = middle - 1;
    }
  }
  long long left = pool.entries - cost_up_to(place);
  for (int first = 0; first < pool.lists; first += kScanThreads) {
    const int list = first + static_cast<int>(threadIdx.x);
    const bool there = list < pool.lists;
    const long long count = there ? between(place, better[list], equal[list]) : 0;
    const long long asked = there && count == place && place < equal[list] ? pool.costs[list] : 0;
    const Scanned all = scan_block(asked, warps);
    if (there) taken[list] = count * pool.costs[list] + between(left - all.before, 0, asked);
    left -= all.all < left ? all.all : left;
  }
}

}  // namespace depthkv::cuda
