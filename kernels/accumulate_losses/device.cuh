// SPDX-License-Identifier: Apache-2.0
// Device code of accumulate_losses and set_losses. A block walks along one ranking for sixteen rows: four warps, four
// rows to each, a warp's lanes hold the dimensions of the running sums of weighted values. Thirty-two entries are taken
// at a time: their values come through shared memory once for all rows; the masses before each are a scan over lanes in
// double; thirty-two losses, each spread over the lanes, are added up by exchanging halves, one shuffle to a loss.
// Blocks write what their rows add up to, and a second kernel adds blocks in order.
#pragma once
#include "depthkv/curve.h"
#include "kernels/launch.cuh"

namespace depthkv::cuda {

inline constexpr int kLossWarps = 4;
inline constexpr int kLossThreads = kLossWarps * 32;
inline constexpr int kWarpRows = 4;
inline constexpr int kLossRows = kLossWarps * kWarpRows;
inline constexpr int kTaken = 32;  // entries at a time, one to a lane
inline constexpr int kMostWidth = 8;

// kWidth: numbers of a value, a multiple of 32, in each lane.
struct LossBlock {
  const float* weights;  // [token][rows]: attention, turned over
  const float* values;   // [token][32 * kWidth], zeros behind the last dimension
  int rows;              // a multiple of kLossRows, zeros behind the last
};

// in [rows][tokens] to out [tokens][stride], zeros behind the last row; grid: tiles of 32 tokens, of 32 rows up to
// stride.
inline constexpr int kTurnThreads = 128;
static __global__ void __launch_bounds__(kTurnThreads)
    turn_over_kernel(const float* in, int rows, int tokens, float* out, int stride) {
  DEPTHKV_SHARED(float[32][33], tile);
  const int first_token = static_cast<int>(blockIdx.x) * 32;
  const int first_row = static_cast<int>(blockIdx.y) * 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  for (int i = warp; i < 32; i += kTurnThreads / 32) {
    const int row = first_row + i;
    const int token = first_token + lane;
    tile[i][lane] = row < rows && token < tokens ? in[static_cast<long long>(row) * tokens + token] : 0.0F;
  }
  __syncthreads();
  for (int i = warp; i < 32; i += kTurnThreads / 32) {
    const int token = first_token + i;
    if (token < tokens && first_row + lane < stride)
      out[static_cast<long long>(token) * stride + first_row + lane] = tile[lane][i];
  }
}

template <int kWidth>
struct LossTiles {
  alignas(16) float values[kTaken][32 * kWidth];
  alignas(16) float weights[kLossWarps][kTaken][kWarpRows];
  alignas(16) float inverse[kLossWarps][kTaken][kWarpRows];
  double mass[kLossWarps][kTaken];
  double error[kLossWarps][kTaken];
};

// The lane's part of a value, in pieces of 128 bits where there are.
template <int kWidth>
__device__ inline void load_part(const float* value, int lane, float (&part)[kWidth]) {
  if constexpr (kWidth % 4 == 0) {
    DEPTHKV_UNROLL
    for (int i = 0; i < kWidth / 4; ++i) {
      const float4 piece = reinterpret_cast<const float4*>(value)[i * 32 + lane];
      part[4 * i] = piece.x;
      part[4 * i + 1] = piece.y;
      part[4 * i + 2] = piece.z;
      part[4 * i + 3] = piece.w;
    }
  } else {
    DEPTHKV_UNROLL
    for (int i = 0; i < kWidth; ++i) part[i] = value[i * 32 + lane];
  }
}
template <int kWidth>
__device__ inline void store_part(float* value, int lane, const float (&part)[kWidth]) {
  constexpr int kPiece = kWidth % 4 == 0 ? 4 : 1;
  DEPTHKV_UNROLL
  for (int i = 0; i < kWidth; ++i) value[(i / kPiece * 32 + lane) * kPiece + i % kPiece] = part[i];
}

// Entries [first, first + kTaken) of an order, or of all positions where there is none.
struct Order {
  const unsigned* positions;  // may be null
  int offset;                 // added to what is walked where it is
  int count;                  // at least 1

  __device__ int at(int i) const {
    const int inside = min(i, count - 1);
    return positions != nullptr ? static_cast<int>(positions[inside]) : inside + offset;
  }
};

// All threads of the block together: values of the entries from `first` on.
template <int kWidth>
__device__ void take_values(LossTiles<kWidth>& tiles, const LossBlock& block, const Order& order, int first) {
  constexpr int kPieces = 8 * kWidth;  // of 128 bits
  DEPTHKV_NO_UNROLL
  for (int i = static_cast<int>(threadIdx.x); i < kTaken * kPieces; i += kLossThreads) {
    const long long position = order.at(first + i / kPieces);
    reinterpret_cast<float4*>(tiles.values[i / kPieces])[i % kPieces] =
        reinterpret_cast<const float4*>(block.values + position * (32 * kWidth))[i % kPieces];
  }
}

// The weights of the warp's rows for the lane's entry; zeros behind the last.
__device__ inline void take_weights(const LossBlock& block, const Order& order, int entry, int row,
                                    float (&weights)[kWarpRows]) {
  const long long position = order.at(entry);
  const float4 four = *reinterpret_cast<const float4*>(block.weights + position * block.rows + row);
  const bool there = entry < order.count;
  weights[0] = there ? four.x : 0.0F;
  weights[1] = there ? four.y : 0.0F;
  weights[2] = there ? four.z : 0.0F;
  weights[3] = there ? four.w : 0.0F;
}

// Sum over this lane and those before it.
__device__ inline double scan(double value, int lane) {
  DEPTHKV_UNROLL
  for (int step = 1; step < 32; step *= 2) {
    const double before = __shfl_up_sync(kAllLanes, value, static_cast<unsigned>(step));
    if (lane >= step) value += before;
  }
  return value;
}

// next() is called kCount times, by all lanes; lane i gets the sum over lanes of what its i-th call (modulo kCount)
// returned.
template <int kCount, class Next>
__device__ inline float transposed_sums(Next& next, int lane) {
  if constexpr (kCount == 1) {
    return next();
  } else {
    constexpr int kHalf = kCount / 2;
    const float low = transposed_sums<kHalf>(next, lane);
    const float high = transposed_sums<kHalf>(next, lane);
    const bool upper = (lane & kHalf) != 0;
    return (upper ? high : low) + __shfl_xor_sync(kAllLanes, upper ? low : high, kHalf);
  }
}

// Sums of weighted values over an order, for all rows: sums [rows][32 * kWidth] and mass [rows], from where `start`
// left off if there is one. grid: rows.
template <int kWidth>
__global__ void __launch_bounds__(kLossThreads, 4)
    weighted_sums_kernel(LossBlock block, Order order, const float* start, const double* start_mass, float* sums,
                         double* mass) {
  DEPTHKV_SHARED(LossTiles<kWidth>, tiles);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int row = static_cast<int>(blockIdx.x) * kLossRows + warp * kWarpRows;
  float sum[kWarpRows][kWidth];
  double received[kWarpRows];
  DEPTHKV_UNROLL
  for (int r = 0; r < kWarpRows; ++r) {
    DEPTHKV_UNROLL
    for (float& part : sum[r]) part = 0;
    if (start != nullptr) load_part<kWidth>(start + (row + r) * 32 * kWidth, lane, sum[r]);
    received[r] = start != nullptr && lane == 0 ? start_mass[row + r] : 0.0;
  }
  DEPTHKV_NO_UNROLL
  for (int first = 0; first < order.count; first += kTaken) {
    float weights[kWarpRows];
    take_weights(block, order, first + lane, row, weights);
    __syncthreads();  // the tiles have been read
    take_values(tiles, block, order, first);
    DEPTHKV_UNROLL
    for (int r = 0; r < kWarpRows; ++r) {
      tiles.weights[warp][lane][r] = weights[r];
      received[r] += static_cast<double>(weights[r]);
    }
    __syncthreads();
    DEPTHKV_NO_UNROLL
    for (int j = 0; j < kTaken; ++j) {
      float value[kWidth];
      load_part<kWidth>(tiles.values[j], lane, value);
      DEPTHKV_UNROLL
      for (int r = 0; r < kWarpRows; ++r) {
        DEPTHKV_UNROLL
        for (int c = 0; c < kWidth; ++c) sum[r][c] = fmaf(tiles.weights[warp][j][r], value[c], sum[r][c]);
      }
    }
  }
  DEPTHKV_UNROLL
  for (int r = 0; r < kWarpRows; ++r) {
    store_part<kWidth>(sums + (row + r) * 32 * kWidth, lane, sum[r]);
    DEPTHKV_UNROLL
    for (int step = 16; step > 0; step /= 2) received[r] += __shfl_xor_sync(kAllLanes, received[r], step);
    if (lane == 0) mass[row + r] = received[r];
  }
}

// What a ranking's walk starts from and is compared with.
struct Outputs {
  const float* unpruned;        // [rows][32 * kWidth]: what can't be pruned adds up to
  const double* unpruned_mass;  // [rows]
  const float* full;            // [rows][32 * kWidth]
};

// On a multiprocessor: as many as leave registers for two sums of four rows, 64 and more.
constexpr int walk_blocks(int width) { return width > 4 ? 3 : width > 2 ? 4 : 7; }

// rankings [ranking][count]; parts [mass, error][ranking][grid.x][count]. grid: rows, rankings.
template <int kWidth>
__global__ void __launch_bounds__(kLossThreads, walk_blocks(kWidth))
    walk_kernel(LossBlock block, const unsigned* rankings, int count, Outputs outputs, double* parts) {
  DEPTHKV_SHARED(LossTiles<kWidth>, tiles);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int row = static_cast<int>(blockIdx.x) * kLossRows + warp * kWarpRows;
  const Order order{rankings + static_cast<long long>(blockIdx.y) * count, 0, count};
  double* masses = parts + (static_cast<long long>(blockIdx.y) * gridDim.x + blockIdx.x) * count;
  double* errors = masses + static_cast<long long>(gridDim.y) * gridDim.x * count;
  float sum[kWarpRows][kWidth];
  float missing[kWarpRows][kWidth];
  double mass[kWarpRows];
  DEPTHKV_UNROLL
  for (int r = 0; r < kWarpRows; ++r) {
    load_part<kWidth>(outputs.unpruned + (row + r) * 32 * kWidth, lane, sum[r]);
    load_part<kWidth>(outputs.full + (row + r) * 32 * kWidth, lane, missing[r]);
    DEPTHKV_UNROLL
    for (float& part : missing[r]) part = -part;
    mass[r] = outputs.unpruned_mass[row + r];
  }
  DEPTHKV_NO_UNROLL
  for (int first = 0; first < count; first += kTaken) {
    float weights[kWarpRows];
    float inverse[kWarpRows];
    take_weights(block, order, first + lane, row, weights);
    double kept = 0;  // before the lane's entry, of all four rows
    DEPTHKV_UNROLL
    for (int r = 0; r < kWarpRows; ++r) {
      const double through = scan(static_cast<double>(weights[r]), lane);
      const double earlier = __shfl_up_sync(kAllLanes, through, 1);
      const double before = lane > 0 ? mass[r] + earlier : mass[r];
      mass[r] += __shfl_sync(kAllLanes, through, 31);
      inverse[r] = before > kNoMass ? 1.0F / static_cast<float>(before) : 0.0F;
      kept += before;
    }
    __syncthreads();  // the tiles have been read
    take_values(tiles, block, order, first);
    DEPTHKV_UNROLL
    for (int r = 0; r < kWarpRows; ++r) {
      tiles.weights[warp][lane][r] = weights[r];
      tiles.inverse[warp][lane][r] = inverse[r];
    }
    tiles.mass[warp][lane] = kept;
    __syncthreads();
    int entry = 0;
    auto next = [&] {
      float value[kWidth];
      load_part<kWidth>(tiles.values[entry], lane, value);
      float loss = 0;
      DEPTHKV_UNROLL
      for (int r = 0; r < kWarpRows; ++r) {
        const float weight = tiles.weights[warp][entry][r];
        const float scale = tiles.inverse[warp][entry][r];
        DEPTHKV_UNROLL
        for (int c = 0; c < kWidth; ++c) {
          const float gap = fmaf(sum[r][c], scale, missing[r][c]);
          loss = fmaf(gap, gap, loss);
          sum[r][c] = fmaf(weight, value[c], sum[r][c]);
        }
      }
      ++entry;
      return loss;
    };
    tiles.error[warp][lane] = static_cast<double>(transposed_sums<kTaken>(next, lane));
    __syncthreads();
    if (warp == 0 && first + lane < count) {
      double error = 0;
      kept = 0;
      DEPTHKV_UNROLL
      for (int w = 0; w < kLossWarps; ++w) {
        kept += tiles.mass[w][lane];
        error += tiles.error[w][lane];
      }
      masses[first + lane] = kept;
      errors[first + lane] = error;
    }
  }
}

// sums [curve][count] += parts [curve][blocks][count], block after block. grid: entries, curves.
inline constexpr int kPartThreads = 256;
static __global__ void __launch_bounds__(kPartThreads)
    add_parts_kernel(const double* parts, int blocks, int count, double* sums) {
  const int k = static_cast<int>(blockIdx.x) * kPartThreads + static_cast<int>(threadIdx.x);
  if (k >= count) return;
  const long long curve = blockIdx.y;
  double sum = sums[curve * count + k];
  for (int b = 0; b < blocks; ++b) sum += parts[(curve * blocks + b) * count + k];
  sums[curve * count + k] = sum;
}

}  // namespace depthkv::cuda
