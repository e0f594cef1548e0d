// SPDX-License-Identifier: Apache-2.0
// Device code of projected_norms: a block holds some rows and lets the projection's columns stream by; products are
// reduced where they are.
#pragma once
#include <cmath>

#include "kernels/tiles.cuh"

namespace depthkv::cuda {

struct ProjectionBlock {
  const float* rows;     // [KV head][row][dimensions]
  const float* weights;  // [head][dimension][column]
  int dimensions;        // a multiple of kChunk
  int count;             // rows of a head
  int columns;
  int group;  // query heads per KV head
};

// norms [head][row][2]; grid: tiles of rows, heads.
static __global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    projected_norms_kernel(ProjectionBlock block, float* norms) {
  DEPTHKV_SHARED(Tiles, tiles);
  const int head = static_cast<int>(blockIdx.y);
  const int first_row = static_cast<int>(blockIdx.x) * kHeld;
  const long long dimensions = block.dimensions;
  const Vectors<float> held{
      block.rows + (static_cast<long long>(head / block.group) * block.count + first_row) * dimensions, dimensions,
      min(kHeld, block.count - first_row)};
  const float* weights = block.weights + head * dimensions * block.columns;
  const int row = static_cast<int>(threadIdx.x) / kAcross * kEach;
  const int lane = static_cast<int>(threadIdx.x) % kAcross;
  double l1[kEach] = {};
  double l2[kEach] = {};
  DEPTHKV_NO_UNROLL
  for (int from = 0; from < block.columns; from += kStreamed) {
    const Columns streamed{weights + from, block.columns, min(kStreamed, block.columns - from)};
    float products[kEach][kEach];
    multiply(products, tiles, held, streamed, block.dimensions);
    DEPTHKV_UNROLL
    for (int i = 0; i < kEach; ++i) {
      DEPTHKV_UNROLL
      for (int k = 0; k < kEach; ++k) {
        if (lane * kEach + k >= streamed.count) continue;
        const double product = static_cast<double>(products[i][k]);
        l1[i] += fabs(product);
        l2[i] += product * product;
      }
    }
  }
  DEPTHKV_UNROLL
  for (int i = 0; i < kEach; ++i) {
    DEPTHKV_UNROLL
    for (int step = kAcross / 2; step > 0; step /= 2) {
      l1[i] += __shfl_xor_sync(kAllLanes, l1[i], step);
      l2[i] += __shfl_xor_sync(kAllLanes, l2[i], step);
    }
    if (lane != 0 || row + i >= held.count) continue;
    float* to = norms + (static_cast<long long>(head) * block.count + first_row + row + i) * 2;
    to[0] = static_cast<float>(l1[i]);
    to[1] = static_cast<float>(sqrt(l2[i]));
  }
}

}  // namespace depthkv::cuda
