// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <string>

#include "depthkv/error.h"
#include "kernels/attention_sums/attention_sums.h"
#include "kernels/attention_sums/device.cuh"

namespace depthkv::cuda {
namespace {

unsigned blocks_for(std::int64_t vectors) { return static_cast<unsigned>((vectors + kHeld - 1) / kHeld); }

// Vectors are read 128 bits at a time.
void check_layout(const DeviceAttention& in) {
  if (in.queries.columns % kChunk != 0)
    throw Error("CUDA: heads of " + std::to_string(in.queries.columns) + " dimensions, expected a multiple of " +
                std::to_string(kChunk) + "; use the CPU");
  const auto aligned = [](const void* data) { return reinterpret_cast<std::uintptr_t>(data) % 16 == 0; };
  if (aligned(in.queries.data) && in.queries.row_stride % 4 == 0 && in.queries.head_stride % 4 == 0 &&
      aligned(in.keys.data) && in.keys.row_stride % 8 == 0)
    return;
  throw Error("CUDA: query strides of " + std::to_string(in.queries.row_stride) + " and " +
              std::to_string(in.queries.head_stride) + " floats, key rows of " + std::to_string(in.keys.row_stride) +
              " halves, expected vectors that begin at multiples of 16 bytes; use the CPU");
}

}  // namespace

void attention_sums(const DeviceAttention& in, SoftmaxSpec spec, float* normalisers, double* sums, void* stream) {
  if (in.queries.rows == 0) return;
  check_layout(in);
  const AttentionBlock block{in.queries.data,
                             in.queries.row_stride,
                             in.queries.head_stride,
                             in.keys.data,
                             in.keys.row_stride,
                             in.keys.columns,
                             static_cast<int>(in.queries.columns),
                             static_cast<int>(in.queries.rows),
                             static_cast<int>(in.queries.heads / in.keys.heads),
                             static_cast<int>(in.first),
                             static_cast<int>(spec.window),
                             static_cast<float>(spec.scale),
                             static_cast<float>(spec.softcap)};
  const auto heads = static_cast<unsigned>(in.queries.heads);
  launch({.grid = {blocks_for(block.rows), heads}, .block = {kSumThreads}, .stream = stream}, row_normalisers_kernel,
         block, normalisers);
  launch({.grid = {blocks_for(block.first + block.rows), heads}, .block = {kSumThreads}, .stream = stream},
         key_sums_kernel, block, normalisers, sums, in.keys.rows);
}

}  // namespace depthkv::cuda
