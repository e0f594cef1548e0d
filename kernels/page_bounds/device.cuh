// SPDX-License-Identifier: Apache-2.0
// Device code of page_bounds; page_scores are products of rows.
#pragma once
#include "kernels/product_rows.cuh"

namespace depthkv::cuda {

inline constexpr int kPageThreads = 128;

struct PageBlock {
  const float* keys;  // [head][token][dimensions]
  int tokens;
  int dimensions;
  int size;
  int pages;
};

// A thread to a page and a dimension of a head, grid.y is the head: neighbours read neighbouring numbers. least and
// most [head][page][dimensions].
static __global__ void __launch_bounds__(kPageThreads) page_bounds_kernel(PageBlock block, float* least, float* most) {
  const long long at = static_cast<long long>(blockIdx.x) * kPageThreads + threadIdx.x;
  const long long each = static_cast<long long>(block.pages) * block.dimensions;
  if (at >= each) return;
  const long long page = at / block.dimensions;
  const long long first = page * block.size;
  const int count = static_cast<int>(block.tokens - first < block.size ? block.tokens - first : block.size);
  const float* from = block.keys + (static_cast<long long>(blockIdx.y) * block.tokens + first) * block.dimensions +
                      at % block.dimensions;
  float low = *from;
  float high = *from;
  for (int j = 1; j < count; ++j) {
    from += block.dimensions;
    const float x = *from;
    if (x != x || x < low) low = x;
    if (x != x || x > high) high = x;
  }
  least[blockIdx.y * each + at] = low;
  most[blockIdx.y * each + at] = high;
}

}  // namespace depthkv::cuda
