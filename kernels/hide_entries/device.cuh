// SPDX-License-Identifier: Apache-2.0
// Device code of hide_entries: a thread to four neighbouring columns that begin at a multiple of 16 bytes, whose bits
// lie in one or two words. Only what is hidden is written, and nothing of the logits is read.
#pragma once
#include <cmath>

#include "kernels/launch.cuh"

namespace depthkv::cuda {

inline constexpr int kHideThreads = 256;
inline constexpr int kHideColumns = 4 * kHideThreads;  // of a block

struct HideBlock {
  float* logits;             // [head][row][width]
  const unsigned* bits;      // [KV head][set][words]
  const unsigned* row_sets;  // [row]
  long long width;
  long long words;
  unsigned rows;
  unsigned group;
  unsigned sets;
};

// Of columns first .. first + 3, the lowest one's first; 0 for those before the set's first and behind its last.
__device__ inline unsigned four_bits(const unsigned* set, long long words, long long first) {
  const long long word = first >> 5;
  const unsigned shift = static_cast<unsigned>(first & 31);
  unsigned long long bits = word >= 0 && word < words ? set[word] : 0;
  if (shift > 28 && word + 1 < words) bits |= static_cast<unsigned long long>(set[word + 1]) << 32;
  return static_cast<unsigned>(bits >> shift) & 15U;
}

// grid: rows of all heads, blocks of columns.
static __global__ void __launch_bounds__(kHideThreads) hide_entries_kernel(HideBlock block) {
  float* row = block.logits + blockIdx.x * block.width;
  const long long lead = static_cast<long long>(reinterpret_cast<unsigned long long>(row) / sizeof(float) % 4);
  const long long first = (static_cast<long long>(blockIdx.y) * kHideThreads + threadIdx.x) * 4 - lead;
  const long long left = block.width - first;
  if (left <= 0) return;
  const unsigned head = blockIdx.x / block.rows / block.group;
  const long long set = static_cast<long long>(head) * block.sets + block.row_sets[blockIdx.x % block.rows];
  unsigned hidden = four_bits(block.bits + set * block.words, block.words, first);
  if (left < 4) hidden &= (1U << left) - 1;
  if (hidden == 15) {
    *reinterpret_cast<float4*>(row + first) = float4{-INFINITY, -INFINITY, -INFINITY, -INFINITY};
    return;
  }
  DEPTHKV_UNROLL
  for (int i = 0; i < 4; ++i)
    if ((hidden >> i & 1U) != 0) row[first + i] = -INFINITY;
}

}  // namespace depthkv::cuda
