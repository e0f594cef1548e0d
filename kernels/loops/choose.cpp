// SPDX-License-Identifier: Apache-2.0
#include "kernels/loops/loops.h"

namespace depthkv {

extern const Loops kBaseLoops;
const Loops& base_loops() { return kBaseLoops; }

#ifdef DEPTHKV_AVX512
extern const Loops kAvx512Loops;
const Loops* avx512_loops() {
  const bool can = __builtin_cpu_supports("fma") && __builtin_cpu_supports("avx512f") &&
                   __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
                   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return can ? &kAvx512Loops : nullptr;
}
#else
const Loops* avx512_loops() { return nullptr; }
#endif

const Loops& loops() {
  static const Loops& fastest = avx512_loops() != nullptr ? *avx512_loops() : base_loops();
  return fastest;
}

}  // namespace depthkv
