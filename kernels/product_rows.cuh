// SPDX-License-Identifier: Apache-2.0
// Products of every row with every key in device code, by tiles of 64 rows and 32 keys.
#pragma once
#include <cstdint>

#include "kernels/tiles.cuh"

namespace depthkv::cuda {

struct ProductBlock {
  const float* rows;  // [head][row][dimensions]
  const float* keys;  // [KV head][key][dimensions]
  int dimensions;     // a multiple of kChunk
  int rows_each;      // of a head
  int keys_each;
  int group;    // heads per KV head
  float scale;  // of products
};

// out [head][row][key]; grid: product_grid().
static __global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    product_rows_kernel(ProductBlock block, float* out) {
  DEPTHKV_SHARED(Tiles, tiles);
  const int head = static_cast<int>(blockIdx.z);
  const int first_row = static_cast<int>(blockIdx.y) * kHeld;
  const int first_key = static_cast<int>(blockIdx.x) * kStreamed;
  const long long dimensions = block.dimensions;
  const Vectors<float> held{block.rows + (static_cast<long long>(head) * block.rows_each + first_row) * dimensions,
                            dimensions, min(kHeld, block.rows_each - first_row)};
  const Vectors<float> streamed{
      block.keys + (static_cast<long long>(head / block.group) * block.keys_each + first_key) * dimensions, dimensions,
      min(kStreamed, block.keys_each - first_key)};
  float products[kEach][kEach];
  multiply(products, tiles, held, streamed, block.dimensions);
  const int row = static_cast<int>(threadIdx.x) / kAcross * kEach;
  const int key = static_cast<int>(threadIdx.x) % kAcross * kEach;
  DEPTHKV_UNROLL
  for (int i = 0; i < kEach; ++i) {
    if (row + i >= held.count) continue;
    float* to =
        out + (static_cast<long long>(head) * block.rows_each + first_row + row + i) * block.keys_each + first_key;
    DEPTHKV_UNROLL
    for (int k = 0; k < kEach; ++k)
      if (key + k < streamed.count) to[key + k] = products[i][k] * block.scale;
  }
}

inline dim3 product_grid(const ProductBlock& block, std::int64_t heads) {
  const auto tiles = [](int count, int size) { return static_cast<unsigned>((count + size - 1) / size); };
  return {tiles(block.keys_each, kStreamed), tiles(block.rows_each, kHeld), static_cast<unsigned>(heads)};
}

}  // namespace depthkv::cuda
