// SPDX-License-Identifier: Apache-2.0
// What CUDA says its names do, and that the shim's do the same.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "depthkv/error.h"
#include "kernels/device_memory.h"
#include "kernels/launch.cuh"

namespace depthkv {
namespace {

using cuda::DeviceArray;
using cuda::kAllLanes;
using cuda::launch;

// out[thread] after kernel(out) on one block.
std::vector<int> of_threads(unsigned threads, void (*kernel)(int*), std::uint64_t seed = 3) {
  const simt::WithSchedule with({.seed = seed});
  const DeviceArray<int> out(threads);
  launch({.block = {threads}}, kernel, out.data());
  return out.to_host();
}

template <class Expected>
void expect_lanes(const std::vector<int>& found, Expected expected) {
  for (int i = 0; i < static_cast<int>(found.size()); ++i)
    EXPECT_EQ(found[static_cast<std::size_t>(i)], expected(i)) << i;
}

int thread() { return static_cast<int>(threadIdx.x); }

TEST(Shim, ShufflesReadWhereCudaSaysTheyDo) {
  expect_lanes(of_threads(64, [](int* out) { out[thread()] = __shfl_sync(kAllLanes, thread(), 5); }),
               [](int i) { return i / 32 * 32 + 5; });
  expect_lanes(of_threads(64, [](int* out) { out[thread()] = __shfl_sync(kAllLanes, thread(), 9, 8); }),
               [](int i) { return i / 8 * 8 + 1; });
  expect_lanes(of_threads(64, [](int* out) { out[thread()] = __shfl_up_sync(kAllLanes, thread(), 3); }),
               [](int i) { return i % 32 < 3 ? i : i - 3; });
  expect_lanes(of_threads(64, [](int* out) { out[thread()] = __shfl_down_sync(kAllLanes, thread(), 3, 16); }),
               [](int i) { return i % 16 + 3 > 15 ? i : i + 3; });
  expect_lanes(of_threads(64, [](int* out) { out[thread()] = __shfl_xor_sync(kAllLanes, thread(), 9); }),
               [](int i) { return i ^ 9; });
}

TEST(Shim, ShufflesMoveEveryKindOfNumber) {
  expect_lanes(of_threads(32,
                          [](int* out) {
                            const bool same = __shfl_xor_sync(kAllLanes, 0.5 + thread(), 1) == 0.5 + (thread() ^ 1) &&
                                              __shfl_xor_sync(kAllLanes, 0.5F + thread(), 1) == 0.5F + (thread() ^ 1) &&
                                              __shfl_sync(kAllLanes, -1LL - thread(), 7) == -8;
                            out[thread()] = same ? 1 : 0;
                          }),
               [](int) { return 1; });
}

TEST(Shim, VotesAreOfTheLanesOfTheMask) {
  expect_lanes(of_threads(32,
                          [](int* out) {
                            const unsigned half = thread() < 16 ? 0x0000ffffU : 0xffff0000U;
                            const unsigned ballot = __ballot_sync(half, thread() % 3 == 0);
                            const int any = __any_sync(half, thread() == 20);
                            const int all = __all_sync(half, thread() >= 16);
                            out[thread()] = __popc(ballot) * 100 + any * 10 + all;
                          }),
               [](int i) { return i < 16 ? 600 : 511; });
}

TEST(Shim, ApartMasksDoNotWaitForEachOther) {
  expect_lanes(of_threads(32,
                          [](int* out) {
                            if (thread() < 8) {
                              int sum = thread();
                              for (int step = 4; step > 0; step /= 2) sum += __shfl_xor_sync(0xffU, sum, step);
                              out[thread()] = sum;
                            } else {
                              __syncwarp(0xffffff00U);
                              out[thread()] = -1;
                            }
                            __syncthreads();
                          }),
               [](int i) { return i < 8 ? 28 : -1; });
}

TEST(Shim, AWarpAddsUpUnderEverySchedule) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    expect_lanes(of_threads(
                     1024,
                     [](int* out) {
                       DEPTHKV_SHARED(int[32], warps);
                       int sum = thread();
                       for (int step = 16; step > 0; step /= 2) sum += __shfl_down_sync(kAllLanes, sum, step);
                       if (thread() % 32 == 0) warps[thread() / 32] = sum;
                       __syncthreads();
                       sum = 0;
                       for (const int warp : warps) sum += warp;
                       out[thread()] = sum;
                     },
                     seed),
                 [](int) { return 1023 * 1024 / 2; });
  }
}

TEST(Shim, AtomicsOfAllBlocksAddUp) {
  const std::vector<int> start{0, 0, 1000, 0, 7};
  const DeviceArray<int> out{std::span(start)};
  const auto kernel = [](int* to) {
    const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    atomicAdd(&to[0], 1);
    atomicMax(&to[1], i);
    atomicMin(&to[2], i - 5);
    atomicExch(&to[3], 4);
    atomicCAS(&to[4], 7, 8);
  };
  launch({.grid = {9}, .block = {96}}, static_cast<void (*)(int*)>(kernel), out.data());
  EXPECT_EQ(out.to_host(), (std::vector<int>{864, 863, -5, 4, 8}));
}

TEST(Shim, EveryThreadOfEveryBlockRunsOnceWithItsIndices) {
  const dim3 grid{3, 4, 2};
  const dim3 block{5, 2, 3};
  const DeviceArray<int> out(24 * 30);
  const auto kernel = [](int* to) {
    const unsigned b = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    const unsigned t = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    to[b * 30 + t] = static_cast<int>(b * 30 + t);
  };
  for (const int workers : {1, 2, 5}) {
    const simt::WithSchedule with({.seed = 2, .workers = workers});
    launch({.grid = grid, .block = block}, static_cast<void (*)(int*)>(kernel), out.data());
    expect_lanes(out.to_host(), [](int i) { return i; });
  }
}

TEST(Shim, SeedsChangeTheOrderOfThreads) {
  std::set<std::vector<int>> orders;
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    const simt::WithSchedule with({.seed = seed});
    const std::vector<int> zeros(129);
    const DeviceArray<int> out{std::span(zeros)};
    const auto kernel = [](int* to) { to[1 + thread()] = atomicAdd(&to[0], 1); };
    launch({.block = {128}}, static_cast<void (*)(int*)>(kernel), out.data());
    std::vector<int> order = out.to_host();
    orders.insert(order);
    std::sort(order.begin() + 1, order.end());
    for (int i = 0; i < 128; ++i) EXPECT_EQ(order[static_cast<std::size_t>(i + 1)], i);
  }
  EXPECT_EQ(orders.size(), 6U);
}

TEST(Shim, DynamicSharedMemoryIsAsLargeAsTheLaunchSays) {
  const DeviceArray<int> out(64);
  const auto kernel = [](int* to) {
    DEPTHKV_DYNAMIC_SHARED(int, scratch);
    scratch[63 - thread()] = thread();
    __syncthreads();
    to[thread()] = scratch[thread()];
  };
  launch({.block = {64}, .shared_bytes = 256}, static_cast<void (*)(int*)>(kernel), out.data());
  expect_lanes(out.to_host(), [](int i) { return 63 - i; });
  EXPECT_THROW(launch({.block = {64}}, static_cast<void (*)(int*)>(kernel), out.data()), Error);
}

__global__ void nothing() {}
__global__ void greedy() {
  DEPTHKV_SHARED(char[40 * 1024], first);
  DEPTHKV_SHARED(char[9 * 1024], second);
  first[0] = second[0] = 0;
}

TEST(Shim, LaunchesThatADeviceRefusesAreRefused) {
  EXPECT_NO_THROW(launch({.block = {1024}}, nothing));
  EXPECT_THROW(launch({.block = {1025}}, nothing), Error);
  EXPECT_THROW(launch({.block = {1, 1, 65}}, nothing), Error);
  EXPECT_THROW(launch({.grid = {0}, .block = {32}}, nothing), Error);
  EXPECT_THROW(launch({.grid = {1, 65536}, .block = {32}}, nothing), Error);
  EXPECT_THROW(launch({.block = {32}, .shared_bytes = 164 * 1024}, nothing), Error);
  EXPECT_THROW(launch({.block = {32}}, greedy), Error);
  EXPECT_THROW(__syncthreads(), Error);  // outside of a launch
}

}  // namespace
}  // namespace depthkv
