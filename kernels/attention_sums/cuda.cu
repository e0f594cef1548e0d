// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention_sums/attention_sums.h"
#include "kernels/attention_sums/device.cuh"
#include "kernels/checked.cuh"

namespace depthkv::cuda {
namespace {

constexpr unsigned kThreads = 128;

unsigned blocks_for(long long count) { return static_cast<unsigned>((count + kThreads - 1) / kThreads); }

template <int kDimensions>
void launch(const AttentionBlock& block, int heads, float* normalisers, double* sums, long long columns,
            cudaStream_t stream) {
  const auto y = static_cast<unsigned>(heads);
  row_normalisers_kernel<kDimensions><<<dim3(blocks_for(block.rows), y), kThreads, 0, stream>>>(block, normalisers);
  check(cudaGetLastError());
  key_sums_kernel<kDimensions>
      <<<dim3(blocks_for(block.first + block.rows), y), kThreads, 0, stream>>>(block, normalisers, sums, columns);
  check(cudaGetLastError());
}

}  // namespace

void attention_sums(const DeviceAttention& in, SoftmaxSpec spec, float* normalisers, double* sums, void* stream) {
  if (in.queries.rows == 0) return;
  const AttentionBlock block{in.queries.data,
                             in.queries.row_stride,
                             in.queries.head_stride,
                             in.keys.data,
                             in.keys.row_stride,
                             in.keys.columns,
                             static_cast<int>(in.queries.rows),
                             static_cast<int>(in.queries.heads / in.keys.heads),
                             in.first,
                             spec.window,
                             static_cast<float>(spec.scale),
                             static_cast<float>(spec.softcap)};
  const auto heads = static_cast<int>(in.queries.heads);
  const auto on = static_cast<cudaStream_t>(stream);
  switch (in.queries.columns) {
    case 64:
      return launch<64>(block, heads, normalisers, sums, in.keys.rows, on);
    case 80:
      return launch<80>(block, heads, normalisers, sums, in.keys.rows, on);
    case 96:
      return launch<96>(block, heads, normalisers, sums, in.keys.rows, on);
    case 128:
      return launch<128>(block, heads, normalisers, sums, in.keys.rows, on);
    case 256:
      return launch<256>(block, heads, normalisers, sums, in.keys.rows, on);
    default:
      throw Error("CUDA: heads of " + std::to_string(in.queries.columns) +
                  " dimensions, expected 64, 80, 96, 128 or 256; use the CPU");
  }
}

}  // namespace depthkv::cuda
