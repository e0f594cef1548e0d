// SPDX-License-Identifier: Apache-2.0
// Device code of attention_sums, without a launch. Two passes, neither of which keeps a row: the logarithm of every
// row's sum of exponentials, then every key's sum over rows. Threads share nothing, so that sums are taken in one order
// and no atomics are needed; what neighbouring threads read is the same, and comes from the cache.
#pragma once
#include <cmath>
#include <cstring>

#ifdef __CUDACC__
#define DEPTHKV_UNROLL _Pragma("unroll")
#else
#define DEPTHKV_UNROLL
#endif

namespace depthkv::cuda {

// Strides are in elements.
struct AttentionBlock {
  const float* queries;  // [row][head][dimension]
  long long query_row_stride;
  long long query_head_stride;
  const unsigned short* keys;  // half precision, [position][KV head][dimension]
  long long key_row_stride;
  long long key_head_stride;
  int rows;
  int group;         // query heads per KV head
  long long first;   // position of row 0
  long long window;  // 0: all up to its own
  float scale;
  float softcap;  // 0: none
};

// IEEE half precision; the hardware's conversion needs a header that only nvcc has.
__device__ inline float float_of_half(unsigned short half) {
  const unsigned sign = static_cast<unsigned>(half & 0x8000U) << 16;
  const unsigned exponent = half >> 10 & 0x1fU;
  const unsigned mantissa = half & 0x3ffU;
  if (exponent == 0) {
    const float units = static_cast<float>(mantissa) * 5.9604644775390625e-8F;  // 2^-24
    return sign != 0 ? -units : units;
  }
  const unsigned bits = sign | (exponent == 0x1f ? 0x7f800000U : (exponent + 112) << 23) | mantissa << 13;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

__device__ inline float logit_of(const AttentionBlock& block, float product) {
  const float logit = product * block.scale;
  return block.softcap > 0 ? block.softcap * tanhf(logit / block.softcap) : logit;
}

// The first key that the row at `position` sees.
__device__ inline long long first_seen_by(const AttentionBlock& block, long long position) {
  return block.window > 0 && position >= block.window ? position - block.window + 1 : 0;
}

// One thread per (head, row), its query in registers; grid.y is the head. normalisers [head][row].
template <int kDimensions>
__global__ void row_normalisers_kernel(AttentionBlock block, float* normalisers) {
  const int row = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (row >= block.rows) return;
  const int head = static_cast<int>(blockIdx.y);
  const float* from = block.queries + row * block.query_row_stride + head * block.query_head_stride;
  float query[kDimensions];
  DEPTHKV_UNROLL
  for (int c = 0; c < kDimensions; ++c) query[c] = from[c];
  const long long position = block.first + row;
  const unsigned short* keys = block.keys + head / block.group * block.key_head_stride;
  float top = -INFINITY;
  double sum = 0;
  for (long long j = first_seen_by(block, position); j <= position; ++j) {
    const unsigned short* key = keys + j * block.key_row_stride;
    float product = 0;
    DEPTHKV_UNROLL
    for (int c = 0; c < kDimensions; ++c) product += query[c] * float_of_half(key[c]);
    const float logit = logit_of(block, product);
    if (logit > top) {
      sum = sum * static_cast<double>(expf(top - logit)) + 1.0;
      top = logit;
    } else {
      sum += static_cast<double>(expf(logit - top));
    }
  }
  normalisers[static_cast<long long>(head) * block.rows + row] = top + static_cast<float>(log(sum));
}

// One thread per (head, key), its key in registers; adds to sums [head][columns].
template <int kDimensions>
__global__ void key_sums_kernel(AttentionBlock block, const float* normalisers, double* sums, long long columns) {
  const long long j = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (j >= block.first + block.rows) return;
  const int head = static_cast<int>(blockIdx.y);
  const unsigned short* from = block.keys + j * block.key_row_stride + head / block.group * block.key_head_stride;
  float key[kDimensions];
  DEPTHKV_UNROLL
  for (int c = 0; c < kDimensions; ++c) key[c] = float_of_half(from[c]);
  double sum = 0;
  const int begin = j > block.first ? static_cast<int>(j - block.first) : 0;
  for (int row = begin; row < block.rows; ++row) {
    if (j < first_seen_by(block, block.first + row)) break;
    const float* query = block.queries + row * block.query_row_stride + head * block.query_head_stride;
    float product = 0;
    DEPTHKV_UNROLL
    for (int c = 0; c < kDimensions; ++c) product += query[c] * key[c];
    sum += static_cast<double>(
        expf(logit_of(block, product) - normalisers[static_cast<long long>(head) * block.rows + row]));
  }
  sums[head * columns + j] += sum;
}

}  // namespace depthkv::cuda
