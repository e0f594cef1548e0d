// SPDX-License-Identifier: Apache-2.0
// Runs a test of device code under several orders of threads and blocks; on a GPU, several times.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <vector>

#include "kernels/cases.h"
#ifndef DEPTHKV_ON_GPU
#include "kernels/simt/simt.h"
#endif

namespace depthkv {

// Calls test(). Each call should give the same bits.
template <class Test>
void under_schedules(Test test) {
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  constexpr std::uint64_t kSeeds[] = {1};  // what these see they see in any order
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

// All of them; where each step is watched, long shapes, which take long enough, have the first alone.
template <class Spec>
std::vector<Spec> specs_for(const KernelCase& c, std::initializer_list<Spec> all) {
#if defined(__SANITIZE_THREAD__)
  constexpr std::int64_t kLong = 512;  // tokens
#elif defined(__SANITIZE_ADDRESS__)
  constexpr std::int64_t kLong = 4096;
#else
  constexpr std::int64_t kLong = std::numeric_limits<std::int64_t>::max();
#endif
  return {all.begin(), c.tokens > kLong ? all.begin() + 1 : all.end()};
}

}  // namespace depthkv
