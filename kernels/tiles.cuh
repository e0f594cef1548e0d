// SPDX-License-Identifier: Apache-2.0
// Products of many vectors with many in device code. A block holds some vectors and lets others stream by, a tile at a
// time; each thread multiplies four held with four streamed ones, whose dimensions come through shared memory a few at
// a time.
#pragma once
#include "kernels/numbers.cuh"

namespace depthkv::cuda {

inline constexpr int kTileThreads = 128;
inline constexpr int kTileBlocks = 8;  // on a multiprocessor: half of its threads, which leaves 64 registers to each
inline constexpr int kHeld = 64;       // vectors
inline constexpr int kStreamed = 32;
inline constexpr int kChunk = 16;                  // dimensions
inline constexpr int kPad = 4;                     // so that what is stored together lies in different banks
inline constexpr int kEach = 4;                    // vectors of either kind to a thread
inline constexpr int kAcross = kStreamed / kEach;  // neighbouring lanes share held vectors
static_assert(kTileThreads == kAcross * (kHeld / kEach));

struct Tiles {
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
  for (int i = static_cast<int>(threadIdx.x); i < kVectors * (kChunk / kPiece); i += kTileThreads) {
    const int vector = i % kVectors;
    const int piece = i / kVectors * kPiece;
    float values[kPiece];
    load_piece(from.data + min(vector, from.count - 1) * from.stride + chunk + piece, values);
    DEPTHKV_UNROLL
    for (int c = 0; c < kPiece; ++c) tile[piece + c][vector] = values[c];
  }
}

// Vectors that lie side by side: dimension c of the i-th is data[c * stride + i].
struct Columns {
  const float* data;
  long long stride;
  int count;  // at least 1
};
template <int kStride>
__device__ void fill(float (&tile)[kChunk][kStride], const Columns& from, int chunk) {
  constexpr int kVectors = kStride - kPad;
  DEPTHKV_NO_UNROLL
  for (int i = static_cast<int>(threadIdx.x); i < kVectors * kChunk; i += kTileThreads) {
    const int vector = i % kVectors;
    const int c = i / kVectors;
    tile[c][vector] = from.data[(chunk + c) * from.stride + min(vector, from.count - 1)];
  }
}

// products[a][b] of this thread's held vectors, from kEach * held_share(), with its streamed ones, from kEach * lane:
// terms are fused and added in the order of the dimensions, as the CPU does.
template <class Held, class Streamed>
__device__ void multiply(float (&products)[kEach][kEach], Tiles& tiles, const Held& held, const Streamed& streamed,
                         int dimensions) {
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
        for (int j = 0; j < kEach; ++j) products[i][j] = fmaf(x[i], y[j], products[i][j]);
      }
    }
  }
}

}  // namespace depthkv::cuda
