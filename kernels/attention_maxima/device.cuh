// SPDX-License-Identifier: Apache-2.0
// Device code of attention_maxima. Three passes over the products, none of which keeps a row: every row's largest
// logit, then its sum of exponentials, then every key's maximum over rows. Products, exponentials and a row's sum are
// taken as attention_rows takes them, so that the maxima are those of its rows, to the bit.
#pragma once
#include <cmath>

#include "kernels/cached_attention.cuh"
#include "kernels/exponentials.cuh"

namespace depthkv::cuda {

inline constexpr int kWeightings = 2;  // at a time
static_assert(kStreamed == 32 && kEach == 4, "a row's sum has 32 parts, four to a lane");

__device__ inline float logit_as_on_cpu(const AttentionBlock& block, float product) {
  const float logit = product * block.scale;
  return block.softcap > 0 ? block.softcap * tanh_as_on_cpu(logit / block.softcap) : logit;
}

__device__ inline bool sees(const AttentionBlock& block, int position, int key) {
  return key <= position && key >= first_seen_by(block, position);
}

// Calls take(products, first key) for tiles of keys, at multiples of kStreamed, that some held row sees.
template <class Take>
__device__ void for_key_tiles(const AttentionBlock& block, Tiles& tiles, int head, int first_row, Take take) {
  const Vectors<float> held{block.queries + first_row * block.query_row_stride + head * block.query_head_stride,
                            block.query_row_stride, min(kHeld, block.rows - first_row)};
  const Half* keys = block.keys + head / block.group * block.key_head_stride;
  const int behind = block.first + first_row + held.count;
  DEPTHKV_NO_UNROLL
  for (int from = first_seen_by(block, block.first + first_row) / kStreamed * kStreamed; from < behind;
       from += kStreamed) {
    float products[kEach][kEach];
    multiply(products, tiles, held,
             Vectors<Half>{keys + from * block.key_row_stride, block.key_row_stride, min(kStreamed, behind - from)},
             block.dimensions);
    take(products, from);
  }
}

// kHeld rows to a block; grid.y is the head. tops [head][row]: the largest logit.
static __global__ void __launch_bounds__(kTileThreads, kTileBlocks) row_tops_kernel(AttentionBlock block, float* tops) {
  DEPTHKV_SHARED(Tiles, tiles);
  const int head = static_cast<int>(blockIdx.y);
  const int first_row = static_cast<int>(blockIdx.x) * kHeld;
  const int row = first_row + static_cast<int>(threadIdx.x) / kAcross * kEach;
  const int lane = static_cast<int>(threadIdx.x) % kAcross;
  float top[kEach] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
  for_key_tiles(block, tiles, head, first_row, [&](const float(&products)[kEach][kEach], int from) {
    DEPTHKV_UNROLL
    for (int i = 0; i < kEach; ++i) {
      DEPTHKV_UNROLL
      for (int k = 0; k < kEach; ++k) {
        if (!sees(block, block.first + row + i, from + lane * kEach + k)) continue;
        const float logit = logit_as_on_cpu(block, products[i][k]);
        top[i] = logit > top[i] ? logit : top[i];
      }
    }
  });
  DEPTHKV_UNROLL
  for (int i = 0; i < kEach; ++i) {
    DEPTHKV_UNROLL
    for (int step = kAcross / 2; step > 0; step /= 2) {
      const float other = __shfl_xor_sync(kAllLanes, top[i], step);
      top[i] = other > top[i] ? other : top[i];
    }
    if (lane == 0 && row + i < block.rows) tops[static_cast<long long>(head) * block.rows + row + i] = top[i];
  }
}

// The same blocks. inverses [head][row]: one over the sum of exp(logit - top), in 32 parts that are added by halves. A
// thread's parts lie in shared memory, where only it looks: in registers they would leave too few.
static __global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    row_inverses_kernel(AttentionBlock block, const float* tops, float* inverses) {
  DEPTHKV_SHARED(Tiles, tiles);
  DEPTHKV_SHARED(float[kEach][kEach][kTileThreads], sums);
  const int head = static_cast<int>(blockIdx.y);
  const int first_row = static_cast<int>(blockIdx.x) * kHeld;
  const int row = first_row + static_cast<int>(threadIdx.x) / kAcross * kEach;
  const int lane = static_cast<int>(threadIdx.x) % kAcross;
  const float* row_tops = tops + static_cast<long long>(head) * block.rows;
  DEPTHKV_UNROLL
  for (auto& line : sums) {
    DEPTHKV_UNROLL
    for (auto& part : line) part[threadIdx.x] = 0;
  }
  for_key_tiles(block, tiles, head, first_row, [&](const float(&products)[kEach][kEach], int from) {
    DEPTHKV_UNROLL
    for (int i = 0; i < kEach; ++i) {
      const float top = row_tops[min(row + i, block.rows - 1)];
      DEPTHKV_UNROLL
      for (int k = 0; k < kEach; ++k)
        if (sees(block, block.first + row + i, from + lane * kEach + k))
          sums[i][k][threadIdx.x] += exp_as_on_cpu(logit_as_on_cpu(block, products[i][k]) - top);
    }
  });
  DEPTHKV_UNROLL
  for (int i = 0; i < kEach; ++i) {
    float parts[kEach];
    DEPTHKV_UNROLL
    for (int k = 0; k < kEach; ++k) {
      parts[k] = sums[i][k][threadIdx.x];
      DEPTHKV_UNROLL
      for (int step = kAcross / 2; step > 0; step /= 2) parts[k] += __shfl_xor_sync(kAllLanes, parts[k], step);
    }
    const float sum = (parts[0] + parts[2]) + (parts[1] + parts[3]);
    if (lane == 0 && row + i < block.rows) inverses[static_cast<long long>(head) * block.rows + row + i] = 1.0F / sum;
  }
}

// What is no number is never left behind.
__device__ inline float raised(float most, float value) { return value != value || most < value ? value : most; }

struct RowWeights {
  const float* tops;      // [head][row]
  const float* inverses;  // [head][row]
  const float* weights;   // [weighting][row]
  int weightings;
};

// kHeld keys to a block; grid.y is the head, grid.z counts pairs of weightings. Raises maxima [weighting][head][key].
static __global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    key_maxima_kernel(AttentionBlock block, RowWeights in, float* maxima, long long columns) {
  DEPTHKV_SHARED(Tiles, tiles);
  const int head = static_cast<int>(blockIdx.y);
  const int weighting = static_cast<int>(blockIdx.z) * kWeightings;
  const int keys = block.first + block.rows;
  const int first_key = static_cast<int>(blockIdx.x) * kHeld;
  const int key = first_key + static_cast<int>(threadIdx.x) / kAcross * kEach;
  const int lane = static_cast<int>(threadIdx.x) % kAcross;
  const Vectors<Half> held{block.keys + first_key * block.key_row_stride + head / block.group * block.key_head_stride,
                           block.key_row_stride, min(kHeld, keys - first_key)};
  const float* queries = block.queries + head * block.query_head_stride;
  // Rows from the block's first key on see some of its keys, and with a window none that has left the last behind.
  const int behind =
      block.window > 0 ? min(block.rows, first_key + held.count - 1 + block.window - block.first) : block.rows;
  const float* weights[kWeightings];
  DEPTHKV_UNROLL
  for (int w = 0; w < kWeightings; ++w)
    weights[w] = in.weights + static_cast<long long>(min(weighting + w, in.weightings - 1)) * block.rows;
  float most[kWeightings][kEach];
  DEPTHKV_UNROLL
  for (auto& line : most) {
    DEPTHKV_UNROLL
    for (float& x : line) x = -INFINITY;
  }
  DEPTHKV_NO_UNROLL
  for (int from = max(0, first_key - block.first); from < behind; from += kStreamed) {
    float products[kEach][kEach];
    multiply(
        products, tiles, held,
        Vectors<float>{queries + from * block.query_row_stride, block.query_row_stride, min(kStreamed, behind - from)},
        block.dimensions);
    DEPTHKV_UNROLL
    for (int k = 0; k < kEach; ++k) {
      const int row = from + lane * kEach + k;
      if (row >= behind) continue;
      const long long at = static_cast<long long>(head) * block.rows + row;
      const float top = in.tops[at];
      const float inverse = in.inverses[at];
      DEPTHKV_UNROLL
      for (int i = 0; i < kEach; ++i) {
        if (!sees(block, block.first + row, key + i)) continue;
        const float share = exp_as_on_cpu(logit_as_on_cpu(block, products[i][k]) - top) * inverse;
        DEPTHKV_UNROLL
        for (int w = 0; w < kWeightings; ++w) most[w][i] = raised(most[w][i], share * weights[w][row]);
      }
    }
  }
  DEPTHKV_UNROLL
  for (int w = 0; w < kWeightings; ++w) {
    DEPTHKV_UNROLL
    for (int i = 0; i < kEach; ++i) {
      DEPTHKV_UNROLL
      for (int step = kAcross / 2; step > 0; step /= 2)
        most[w][i] = raised(most[w][i], __shfl_xor_sync(kAllLanes, most[w][i], step));
      if (lane != 0 || key + i >= keys || weighting + w >= in.weightings) continue;
      float* to = maxima + (static_cast<long long>(weighting + w) * gridDim.y + head) * columns + key + i;
      *to = raised(*to, most[w][i]);
    }
  }
}

}  // namespace depthkv::cuda
