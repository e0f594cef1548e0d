// SPDX-License-Identifier: Apache-2.0
// Runs a test of device code under several orders of threads and blocks; on a GPU, several times.
#pragma once
#include <cstdint>

#ifndef DEPTHKV_ON_GPU
#include "kernels/simt/simt.h"
#endif

namespace depthkv {

// Calls test(). Each call should give the same bits.
template <class Test>
void under_schedules(Test test) {
#ifdef __SANITIZE_THREAD__
  constexpr std::uint64_t kSeeds[] = {1};  // races are seen in any order
#else
  constexpr std::uint64_t kSeeds[] = {0, 1, 2};
#endif
  for (const std::uint64_t seed : kSeeds) {
#ifndef DEPTHKV_ON_GPU
    const simt::WithSchedule with({.seed = seed});
#endif
    static_cast<void>(seed);
    test();
  }
}

}  // namespace depthkv
