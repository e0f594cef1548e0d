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
  for (const std::uint64_t seed : {0, 1, 2}) {
#ifndef DEPTHKV_ON_GPU
    const simt::WithSchedule with({.seed = seed});
#endif
    static_cast<void>(seed);
    test();
  }
}

}  // namespace depthkv
