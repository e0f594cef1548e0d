// SPDX-License-Identifier: Apache-2.0
// Device code of evidence_curves: a block to a head, a running count over its order.
#pragma once
#include "kernels/block_scan.cuh"

namespace depthkv::cuda {

// orders [head][tokens], marked [tokens], curves [head][tokens + 1]; grid: heads.
static __global__ void __launch_bounds__(kScanThreads)
    evidence_curves_kernel(const unsigned* orders, long long tokens, const unsigned char* marked, long long total,
                           float* curves) {
  DEPTHKV_SHARED(long long[kScanWarps], warps);
  const unsigned* order = orders + blockIdx.x * tokens;
  float* to = curves + blockIdx.x * (tokens + 1);
  if (threadIdx.x == 0) to[0] = 1;
  long long found = 0;
  for (long long first = 0; first < tokens; first += kScanThreads) {
    const long long k = first + threadIdx.x;
    const long long hit = k < tokens && marked[order[k]] != 0 ? 1 : 0;
    const Scanned hits = scan_block(hit, warps);
    const long long lost = total - (found + hits.before + hit);
    if (k < tokens) to[k + 1] = static_cast<float>(static_cast<double>(lost) / static_cast<double>(total));
    found += hits.all;
  }
}

}  // namespace depthkv::cuda
