// SPDX-License-Identifier: Apache-2.0
// Device code of nearest_kept and merge_rows.
#pragma once
#include <cmath>

#include "kernels/tiles.cuh"

namespace depthkv::cuda {

inline constexpr int kMergeThreads = 128;

struct NearestBlock {
  const float* dropped;  // [dropped][dimensions]
  const float* kept;     // [kept][dimensions]
  const float* dropped_inverse;
  const float* kept_inverse;
  int dropped_count;
  int kept_count;
  int dimensions;  // a multiple of kChunk
};

// Whether (cosine, at) is to be taken instead of (most, best): the larger, NaN above all, the lower of equals.
__device__ inline bool is_nearer(float cosine, int at, float most, int best) {
  const bool nan = cosine != cosine;
  const bool most_nan = most != most;
  if (nan || most_nan) return nan && (!most_nan || at < best);
  return cosine > most || (cosine == most && at < best);
}

// kHeld dropped entries to a block, all kept ones stream by.
static __global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    nearest_kernel(NearestBlock block, unsigned* kept, float* similarity) {
  DEPTHKV_SHARED(Tiles, tiles);
  const int first = static_cast<int>(blockIdx.x) * kHeld;
  const int entry = first + static_cast<int>(threadIdx.x) / kAcross * kEach;
  const int lane = static_cast<int>(threadIdx.x) % kAcross;
  const long long dimensions = block.dimensions;
  const Vectors<float> held{block.dropped + first * dimensions, dimensions, min(kHeld, block.dropped_count - first)};
  float most[kEach] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
  int best[kEach] = {INT_MAX, INT_MAX, INT_MAX, INT_MAX};
  DEPTHKV_NO_UNROLL
  for (int from = 0; from < block.kept_count; from += kStreamed) {
    const Vectors<float> streamed{block.kept + from * dimensions, dimensions, min(kStreamed, block.kept_count - from)};
    float products[kEach][kEach];
    multiply(products, tiles, held, streamed, block.dimensions);
    DEPTHKV_UNROLL
    for (int k = 0; k < kEach; ++k) {
      const int at = from + lane * kEach + k;
      if (at >= block.kept_count) continue;
      const float inverse = block.kept_inverse[at];
      DEPTHKV_UNROLL
      for (int i = 0; i < kEach; ++i) {
        const float cosine = products[i][k] * inverse;          // but for a factor that all share
        if (cosine <= most[i] || most[i] != most[i]) continue;  // kept ones come in rising order
        most[i] = cosine;
        best[i] = at;
      }
    }
  }
  DEPTHKV_UNROLL
  for (int i = 0; i < kEach; ++i) {
    DEPTHKV_UNROLL
    for (int step = kAcross / 2; step > 0; step /= 2) {
      const float other = __shfl_xor_sync(kAllLanes, most[i], step);
      const int other_at = __shfl_xor_sync(kAllLanes, best[i], step);
      if (!is_nearer(other, other_at, most[i], best[i])) continue;
      most[i] = other;
      best[i] = other_at;
    }
    if (lane != 0 || entry + i >= block.dropped_count) continue;
    kept[entry + i] = static_cast<unsigned>(best[i]);
    similarity[entry + i] = most[i] * block.dropped_inverse[entry + i];
  }
}

struct MergeBlock {
  const float* kept;        // [kept][columns]
  const float* dropped;     // [dropped][columns]
  const unsigned* begins;   // [kept + 1]: of its members
  const unsigned* members;  // indices into dropped
  const float* weights;     // [dropped]
  const float* shares;      // [dropped]
  long long numbers;        // kept * columns
  int columns;
};

// A thread to a number of a kept row.
static __global__ void __launch_bounds__(kMergeThreads) merge_rows_kernel(MergeBlock block, float* out) {
  const long long at = static_cast<long long>(blockIdx.x) * kMergeThreads + threadIdx.x;
  if (at >= block.numbers) return;
  const long long row = at / block.columns;
  const long long column = at % block.columns;
  double sum = static_cast<double>(block.kept[at]);
  double divisor = 1;
  for (unsigned m = block.begins[row]; m < block.begins[row + 1]; ++m) {
    const unsigned e = block.members[m];
    sum += static_cast<double>(block.weights[e]) *
           static_cast<double>(block.dropped[static_cast<long long>(e) * block.columns + column]);
    divisor += static_cast<double>(block.shares[e]);
  }
  out[at] = static_cast<float>(sum / divisor);
}

}  // namespace depthkv::cuda
