// SPDX-License-Identifier: Apache-2.0
// Device code of attention_sums. Two passes, neither of which keeps a row: the logarithm of every row's sum of
// exponentials, then every key's sum over rows. In both, a block holds some vectors (queries, then keys) and lets the
// others stream by, a tile at a time; each thread multiplies four held with four streamed vectors, whose dimensions
// come through shared memory a few at a time. Sums are taken in one order, and no atomics are needed.
#pragma once
#include <cmath>

#include "kernels/numbers.cuh"

namespace depthkv::cuda {

// Strides are in elements; vectors begin at multiples of 16 bytes.
struct AttentionBlock {
  const float* queries;  // [row][head][dimension]
  long long query_row_stride;
  long long query_head_stride;
  const Half* keys;  // [position][KV head][dimension]
  long long key_row_stride;
  long long key_head_stride;
  int dimensions;  // a multiple of kChunk
  int rows;
  int group;   // query heads per KV head
  int first;   // position of row 0
  int window;  // 0: all up to its own
  float scale;
  float softcap;  // 0: none
};

inline constexpr int kSumThreads = 128;
inline constexpr int kSumBlocks = 8;  // on a multiprocessor: half of its threads, which leaves 64 registers to each
inline constexpr int kHeld = 64;      // vectors
inline constexpr int kStreamed = 32;
inline constexpr int kChunk = 16;                  // dimensions
inline constexpr int kPad = 4;                     // so that what is stored together lies in different banks
inline constexpr int kEach = 4;                    // vectors of either kind to a thread
inline constexpr int kAcross = kStreamed / kEach;  // neighbouring lanes share held vectors
static_assert(kSumThreads == kAcross * (kHeld / kEach));

struct SumTiles {
  alignas(16) float held[kChunk][kHeld + kPad];
  alignas(16) float streamed[kChunk][kStreamed + kPad];
};

template <class T>
struct Vectors {
  const T* data;
  long long stride;
  int count;  // at least 1
};

// 128 bits.
__device__ inline void load_piece(const float* from, float (&to)[4]) {
  const float4 values = *reinterpret_cast<const float4*>(from);
  to[0] = values.x;
  to[1] = values.y;
  to[2] = values.z;
  to[3] = values.w;
}
__device__ inline void load_piece(const Half* from, float (&to)[8]) {
  const uint4 bits = *reinterpret_cast<const uint4*>(from);
  const unsigned pairs[4] = {bits.x, bits.y, bits.z, bits.w};
  DEPTHKV_UNROLL
  for (int i = 0; i < 4; ++i) {
    to[2 * i] = float_of_half(static_cast<Half>(pairs[i] & 0xffffU));
    to[2 * i + 1] = float_of_half(static_cast<Half>(pairs[i] >> 16));
  }
}

// All threads of the block together. Behind the last vector it is repeated.
template <int kStride, class T>
__device__ void fill(float (&tile)[kChunk][kStride], const Vectors<T>& from, int chunk) {
  constexpr int kVectors = kStride - kPad;
  constexpr int kPiece = 16 / static_cast<int>(sizeof(T));
  DEPTHKV_NO_UNROLL
  for (int i = static_cast<int>(threadIdx.x); i < kVectors * (kChunk / kPiece); i += kSumThreads) {
    const int vector = i % kVectors;
    const int piece = i / kVectors * kPiece;
    float values[kPiece];
    load_piece(from.data + min(vector, from.count - 1) * from.stride + chunk + piece, values);
    DEPTHKV_UNROLL
    for (int c = 0; c < kPiece; ++c) tile[piece + c][vector] = values[c];
  }
}

// products[a][b] of this thread's held vectors, from kEach * held_share(), with its streamed ones, from kEach * lane.
template <class Held, class Streamed>
__device__ void multiply(float (&products)[kEach][kEach], SumTiles& tiles, const Vectors<Held>& held,
                         const Vectors<Streamed>& streamed, int dimensions) {
  const int a = static_cast<int>(threadIdx.x) / kAcross * kEach;
  const int b = static_cast<int>(threadIdx.x) % kAcross * kEach;
  DEPTHKV_UNROLL
  for (auto& row : products) {
    DEPTHKV_UNROLL
    for (float& product : row) product = 0;
  }
  DEPTHKV_NO_UNROLL
  for (int chunk = 0; chunk < dimensions; chunk += kChunk) {
    __syncthreads();  // the tiles have been read
    fill(tiles.held, held, chunk);
    fill(tiles.streamed, streamed, chunk);
    __syncthreads();
    DEPTHKV_UNROLL
    for (int c = 0; c < kChunk; ++c) {
      float x[kEach];
      float y[kEach];
      load_piece(&tiles.held[c][a], x);
      load_piece(&tiles.streamed[c][b], y);
      DEPTHKV_UNROLL
      for (int i = 0; i < kEach; ++i) {
        DEPTHKV_UNROLL
        for (int j = 0; j < kEach; ++j) products[i][j] += x[i] * y[j];
      }
    }
  }
}

__device__ inline float logit_of(const AttentionBlock& block, float product) {
  const float logit = product * block.scale;
  return block.softcap > 0 ? block.softcap * tanhf(logit / block.softcap) : logit;
}

// The first key that the row at `position` sees.
__device__ inline int first_seen_by(const AttentionBlock& block, int position) {
  return block.window > 0 && position >= block.window ? position - block.window + 1 : 0;
}

// exp(-inf - -inf), for a lane that has seen nothing yet, is 0 here.
__device__ inline double rescaled(double sum, float top, float to) {
  return top == -INFINITY ? sum * 0.0 : sum * static_cast<double>(expf(top - to));
}

// kHeld rows to a block; grid.y is the head. normalisers [head][row].
static __global__ void __launch_bounds__(kSumThreads, kSumBlocks)
    row_normalisers_kernel(AttentionBlock block, float* normalisers) {
  DEPTHKV_SHARED(SumTiles, tiles);
  const int head = static_cast<int>(blockIdx.y);
  const int first_row = static_cast<int>(blockIdx.x) * kHeld;
  const int row = first_row + static_cast<int>(threadIdx.x) / kAcross * kEach;
  const int lane = static_cast<int>(threadIdx.x) % kAcross;
  const Vectors<float> held{block.queries + first_row * block.query_row_stride + head * block.query_head_stride,
                            block.query_row_stride, min(kHeld, block.rows - first_row)};
  const Half* keys = block.keys + head / block.group * block.key_head_stride;
  const int behind = block.first + first_row + held.count;
  float top[kEach] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
  double sum[kEach] = {};
  DEPTHKV_NO_UNROLL
  for (int from = first_seen_by(block, block.first + first_row); from < behind; from += kStreamed) {
    float products[kEach][kEach];
    multiply(products, tiles, held,
             Vectors<Half>{keys + from * block.key_row_stride, block.key_row_stride, min(kStreamed, behind - from)},
             block.dimensions);
    DEPTHKV_UNROLL
    for (int i = 0; i < kEach; ++i) {
      const int position = block.first + row + i;
      DEPTHKV_UNROLL
      for (int k = 0; k < kEach; ++k) {
        const int key = from + lane * kEach + k;
        if (key > position || key < first_seen_by(block, position)) continue;
        const float logit = logit_of(block, products[i][k]);
        const float highest = fmaxf(top[i], logit);
        sum[i] = rescaled(sum[i], top[i], highest) + static_cast<double>(expf(logit - highest));
        top[i] = highest;
      }
    }
  }
  DEPTHKV_UNROLL
  for (int i = 0; i < kEach; ++i) {
    DEPTHKV_UNROLL
    for (int step = kAcross / 2; step > 0; step /= 2) {
      const float other_top = __shfl_xor_sync(kAllLanes, top[i], step);
      const double other_sum = __shfl_xor_sync(kAllLanes, sum[i], step);
      const float highest = fmaxf(top[i], other_top);
      sum[i] = rescaled(sum[i], top[i], highest) + rescaled(other_sum, other_top, highest);
      top[i] = highest;
    }
    if (lane == 0 && row + i < block.rows)
      normalisers[static_cast<long long>(head) * block.rows + row + i] = top[i] + static_cast<float>(log(sum[i]));
  }
}

// kHeld keys to a block; grid.y is the head. Adds to sums [head][columns].
static __global__ void __launch_bounds__(kSumThreads, kSumBlocks)
    key_sums_kernel(AttentionBlock block, const float* normalisers, double* sums, long long columns) {
  DEPTHKV_SHARED(SumTiles, tiles);
  const int head = static_cast<int>(blockIdx.y);
  const int keys = block.first + block.rows;
  const int first_key = static_cast<int>(blockIdx.x) * kHeld;
  const int key = first_key + static_cast<int>(threadIdx.x) / kAcross * kEach;
  const int lane = static_cast<int>(threadIdx.x) % kAcross;
  const Vectors<Half> held{block.keys + first_key * block.key_row_stride + head / block.group * block.key_head_stride,
                           block.key_row_stride, min(kHeld, keys - first_key)};
  const float* queries = block.queries + head * block.query_head_stride;
  const float* row_normalisers = normalisers + static_cast<long long>(head) * block.rows;
  // Rows from the block's first key on see some of its keys, and with a window none that has left the last behind.
  const int behind =
      block.window > 0 ? min(block.rows, first_key + held.count - 1 + block.window - block.first) : block.rows;
  double sum[kEach] = {};
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
      const int position = block.first + row;
      const float normaliser = row_normalisers[row];
      DEPTHKV_UNROLL
      for (int i = 0; i < kEach; ++i) {
        if (key + i > position || key + i < first_seen_by(block, position)) continue;
        sum[i] += static_cast<double>(expf(logit_of(block, products[i][k]) - normaliser));
      }
    }
  }
  DEPTHKV_UNROLL
  for (int i = 0; i < kEach; ++i) {
    DEPTHKV_UNROLL
    for (int step = kAcross / 2; step > 0; step /= 2) sum[i] += __shfl_xor_sync(kAllLanes, sum[i], step);
    if (lane == 0 && key + i < keys) sums[head * columns + key + i] += sum[i];
  }
}

}  // namespace depthkv::cuda
