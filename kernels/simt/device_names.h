// SPDX-License-Identifier: Apache-2.0
// What device code may use of CUDA, with the meaning that it has on the CPU. A name that is missing here is missing on
// purpose (float atomics: sums that differ from run to run; __activemask: masks are explicit) or not needed yet.
#pragma once
#include <bit>
#include <climits>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "kernels/simt/memory.h"
#include "kernels/simt/simt.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

// Set by the scheduler before each thread's turn.
extern constinit thread_local uint3 threadIdx;
extern constinit thread_local uint3 blockIdx;
extern constinit thread_local dim3 blockDim;
extern constinit thread_local dim3 gridDim;

using SimtWhere = std::source_location;

inline void __syncthreads(SimtWhere where = SimtWhere::current()) {
  depthkv::simt::ask({.what = depthkv::simt::Ask::block_barrier, .where = where});
}
inline void __syncwarp(unsigned mask = 0xffffffffU, SimtWhere where = SimtWhere::current()) {
  depthkv::simt::ask({.what = depthkv::simt::Ask::warp_barrier, .mask = mask, .where = where});
}

inline unsigned __ballot_sync(unsigned mask, bool vote, SimtWhere where = SimtWhere::current()) {
  return static_cast<unsigned>(
      depthkv::simt::ask({.what = depthkv::simt::Ask::vote, .mask = mask, .value = vote ? 1U : 0U, .where = where}));
}
inline int __any_sync(unsigned mask, bool vote, SimtWhere where = SimtWhere::current()) {
  return __ballot_sync(mask, vote, where) != 0 ? 1 : 0;
}
inline int __all_sync(unsigned mask, bool vote, SimtWhere where = SimtWhere::current()) {
  return __ballot_sync(mask, vote, where) == mask ? 1 : 0;
}

namespace depthkv::simt {

inline int lane() {
  return static_cast<int>((threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32);
}

template <class T>
T shuffle(unsigned mask, T value, int source, std::source_location where) {
  static_assert(std::is_arithmetic_v<T> && sizeof(T) <= 8, "shuffles move numbers");
  Request request{.what = Ask::shuffle, .mask = mask, .source = source, .where = where};
  std::memcpy(&request.value, &value, sizeof value);
  const std::uint64_t answer = ask(request);
  std::memcpy(&value, &answer, sizeof value);
  return value;
}

}  // namespace depthkv::simt

// Lanes are taken in groups of `width`; one that would read from outside of its group gets its own value.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, SimtWhere where = SimtWhere::current()) {
  const int first = depthkv::simt::lane() & ~(width - 1);
  return depthkv::simt::shuffle(mask, value, first + (source & (width - 1)), where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32, SimtWhere where = SimtWhere::current()) {
  const int lane = depthkv::simt::lane();
  const int from = lane - static_cast<int>(by);
  return depthkv::simt::shuffle(mask, value, from < (lane & ~(width - 1)) ? lane : from, where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32, SimtWhere where = SimtWhere::current()) {
  const int lane = depthkv::simt::lane();
  const int from = lane + static_cast<int>(by);
  return depthkv::simt::shuffle(mask, value, from > (lane | (width - 1)) ? lane : from, where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, SimtWhere where = SimtWhere::current()) {
  const int lane = depthkv::simt::lane();
  const int from = lane ^ bits;
  return depthkv::simt::shuffle(mask, value, from > (lane | (width - 1)) ? lane : from, where);
}

template <class T>
concept SimtAtomic = std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, unsigned long long>;

// Relaxed, as CUDA's are: they order nothing else.
template <SimtAtomic T>
T atomicAdd(T* at, std::type_identity_t<T> by) {
  return __atomic_fetch_add(at, by, __ATOMIC_RELAXED);
}
template <SimtAtomic T>
T atomicExch(T* at, std::type_identity_t<T> value) {
  return __atomic_exchange_n(at, value, __ATOMIC_RELAXED);
}
template <SimtAtomic T>
T atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  __atomic_compare_exchange_n(at, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}
template <SimtAtomic T>
T atomicMax(T* at, std::type_identity_t<T> value) {
  T before = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (before < value && !__atomic_compare_exchange_n(at, &before, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
    ;
  return before;
}
template <SimtAtomic T>
T atomicMin(T* at, std::type_identity_t<T> value) {
  T before = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (before > value && !__atomic_compare_exchange_n(at, &before, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
    ;
  return before;
}

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline int __popc(unsigned bits) { return std::popcount(bits); }
inline int __clz(int bits) { return std::countl_zero(static_cast<unsigned>(bits)); }
inline int __ffs(int bits) { return bits == 0 ? 0 : std::countr_zero(static_cast<unsigned>(bits)) + 1; }

namespace depthkv::simt {

// One object per block, named by the address `key`.
template <class T>
T& shared(const void* key, const char* name, std::source_location where = std::source_location::current()) {
  static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= 64, "shared memory is bytes");
  const Request request{.what = Ask::static_shared, .value = sizeof(T), .key = key, .name = name, .where = where};
  return *reinterpret_cast<T*>(ask(request));
}
inline void* dynamic_shared(std::source_location where = std::source_location::current()) {
  return reinterpret_cast<void*>(ask({.what = Ask::dynamic_shared, .where = where}));
}

}  // namespace depthkv::simt
