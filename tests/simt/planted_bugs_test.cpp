// SPDX-License-Identifier: Apache-2.0
// Kernels with a mistake in each, and that it is found: by the shim in every build, and by line where a sanitizer is
// on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "depthkv/error.h"
#include "kernels/device_memory.h"
#include "kernels/launch.cuh"

#ifdef __SANITIZE_THREAD__
// A race ends whatever test it is found in.
extern "C" const char* __tsan_default_options() { return "halt_on_error=1"; }
#endif

namespace depthkv {
namespace {

using cuda::DeviceArray;
using cuda::kAllLanes;
using cuda::launch;
using testing::AllOf;
using testing::HasSubstr;

constexpr int kThreads = 128;

// What launching throws, or "" if nothing.
template <class Launch>
std::string error_of(Launch launch) {
  try {
    launch();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

std::string line(int number) { return "planted_bugs_test.cpp:" + std::to_string(number); }

// Whether every thread of kernel(out) leaves the same in out[thread] under all schedules.
bool same_under_schedules(void (*kernel)(int*)) {
  std::vector<int> before;
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    const simt::WithSchedule with({.seed = seed});
    const DeviceArray<int> out(kThreads);
    launch({.block = {kThreads}}, kernel, out.data());
    const std::vector<int> now = out.to_host();
    if (seed > 0 && now != before) return false;
    before = now;
  }
  return true;
}

// What is raced for is written on the first of the two lines and read on the second.
constexpr int kReversed[] = {__LINE__ + 5, __LINE__ + 7};
template <bool kBarrier>
__global__ void reversed(int* out) {
  DEPTHKV_SHARED(int[kThreads], tile);
  const int i = static_cast<int>(threadIdx.x);
  tile[i] = i;
  if constexpr (kBarrier) __syncthreads();
  out[i] = tile[kThreads - 1 - i];
}

// The tile is filled again while some still read it.
constexpr int kRefilled[] = {__LINE__ + 7, __LINE__ + 9};
template <bool kBarrier>
__global__ void refilled(int* out) {
  DEPTHKV_SHARED(int[kThreads], tile);
  const int i = static_cast<int>(threadIdx.x);
  int sum = 0;
  for (int round = 0; round < 3; ++round) {
    tile[i] = i + round;
    __syncthreads();
    sum += tile[(i + 40) % kThreads];
    if constexpr (kBarrier) __syncthreads();
  }
  out[i] = sum;
}

constexpr int kNeighbours[] = {__LINE__ + 5, __LINE__ + 7};
template <bool kBarrier>
__global__ void neighbours(int* out) {
  DEPTHKV_SHARED(int[kThreads], tile);
  const int i = static_cast<int>(threadIdx.x);
  tile[i] = i;
  if constexpr (kBarrier) __syncwarp();
  out[i] = tile[i ^ 1];
}

__global__ void both_blocks(int* out) { out[threadIdx.x] = static_cast<int>(blockIdx.x); }

TEST(PlantedBugs, CorrectKernelsGiveTheSameUnderAllSchedules) {
  EXPECT_TRUE(same_under_schedules(reversed<true>));
  EXPECT_TRUE(same_under_schedules(refilled<true>));
  EXPECT_TRUE(same_under_schedules(neighbours<true>));
}

#ifdef __SANITIZE_THREAD__
// A shuffle makes all lanes meet, but orders no memory.
constexpr int kShuffled[] = {__LINE__ + 4, __LINE__ + 6};
__global__ void shuffled_instead(int* out) {
  DEPTHKV_SHARED(int[kThreads], tile);
  const int i = static_cast<int>(threadIdx.x);
  tile[i] = i;
  const int met = __shfl_xor_sync(kAllLanes, i, 1);
  out[i] = tile[met];
}

void run_on_threads(void (*kernel)(int*), unsigned blocks = 1) {
  const DeviceArray<int> out(kThreads);
  launch({.grid = {blocks}, .block = {kThreads}}, kernel, out.data());
}

// A report that names both lines, in either order.
std::string race_of(const std::string& kernel, const int (&lines)[2]) {
  const auto in_order = [&](int first, int second) {
    return "data race.*" + kernel + ".*" + line(first) + ".*" + kernel + ".*" + line(second);
  };
  return "(" + in_order(lines[0], lines[1]) + ")|(" + in_order(lines[1], lines[0]) + ")";
}

TEST(PlantedBugsDeathTest, TheRaceDetectorNamesTheLineOfAMissingBarrier) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(run_on_threads(reversed<false>), race_of("reversed<false>", kReversed));
  EXPECT_DEATH(run_on_threads(refilled<false>), race_of("refilled<false>", kRefilled));
  EXPECT_DEATH(run_on_threads(neighbours<false>), race_of("neighbours<false>", kNeighbours));
  EXPECT_DEATH(run_on_threads(shuffled_instead), race_of("shuffled_instead", kShuffled));
}

TEST(PlantedBugsDeathTest, TheRaceDetectorSeesBlocksThatWriteTheSame) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(run_on_threads(both_blocks, 2), "data race.*both_blocks");
}
#else
TEST(PlantedBugs, AMissingBarrierGivesOtherBitsUnderOtherSchedules) {
  EXPECT_FALSE(same_under_schedules(reversed<false>));
  EXPECT_FALSE(same_under_schedules(refilled<false>));
  EXPECT_FALSE(same_under_schedules(neighbours<false>));
}

TEST(PlantedBugs, BlocksThatWriteTheSameGiveOtherBitsUnderOtherSchedules) {
  std::vector<int> last;
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    const simt::WithSchedule with({.seed = seed, .workers = 1});
    const DeviceArray<int> out(kThreads);
    launch({.grid = {2}, .block = {kThreads}}, both_blocks, out.data());
    last.push_back(out.to_host()[0]);
  }
  EXPECT_THAT(last, AllOf(testing::Contains(0), testing::Contains(1)));
}
#endif

__global__ void overflows_static(int at) {
  DEPTHKV_SHARED(float[100], before);
  DEPTHKV_SHARED(float[100], tile);
  float* cells = tile;  // a plain pointer: the compiler knows no bound
  before[threadIdx.x] = 1;
  cells[static_cast<int>(threadIdx.x) + at] = 1;
}
__global__ void overflows_dynamic(int at) {
  DEPTHKV_DYNAMIC_SHARED(float, scratch);
  scratch[static_cast<int>(threadIdx.x) + at] = 1;
}
__global__ void overflows_array(float* array, int at) { array[static_cast<int>(threadIdx.x) + at] = 1; }

void launch_static(int at) { launch({.block = {100}}, overflows_static, at); }
void launch_dynamic(int at) { launch({.block = {100}, .shared_bytes = 400}, overflows_dynamic, at); }
void launch_array(int at) {
  const DeviceArray<float> array(100);
  launch({.block = {100}}, overflows_array, array.data(), at);
}

TEST(PlantedBugs, MemoryThatIsLargeEnoughIsLeftAlone) {
  EXPECT_NO_THROW(launch_static(0));
  EXPECT_NO_THROW(launch_dynamic(0));
  EXPECT_NO_THROW(launch_array(0));
}

#ifdef __SANITIZE_ADDRESS__
TEST(PlantedBugsDeathTest, AddressSanitizerNamesTheKernelOfAnOverflow) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  for (const int at : {1, -1}) {
    EXPECT_DEATH(launch_static(at), "use-after-poison.*overflows_static");
    EXPECT_DEATH(launch_dynamic(at), "use-after-poison.*overflows_dynamic");
    EXPECT_DEATH(launch_array(at), "use-after-poison.*overflows_array");
  }
}
#else
TEST(PlantedBugs, AnOverflowIsFoundAfterTheBlock) {
  for (const int at : {1, -1}) {
    EXPECT_THAT(error_of([&] { launch_static(at); }), HasSubstr("tile has 400 bytes"));
    EXPECT_THAT(error_of([&] { launch_dynamic(at); }), HasSubstr("dynamic shared memory has 400 bytes"));
    EXPECT_THAT(error_of([&] { launch_array(at); }), HasSubstr("an array of 400 bytes"));
  }
}
#endif

__global__ void reads_unset(float* out) {
  DEPTHKV_SHARED(float[kThreads], tile);
  out[blockIdx.x * kThreads + threadIdx.x] = tile[threadIdx.x];
  tile[threadIdx.x] = 1;  // the next block must not see it
}

TEST(PlantedBugs, SharedMemoryThatNobodyWroteIsNan) {
  const DeviceArray<float> out(3 * kThreads);
  for (const float x : out.to_host()) EXPECT_TRUE(std::isnan(x));
  launch({.grid = {3}, .block = {kThreads}}, reads_unset, out.data());
  for (const float x : out.to_host()) EXPECT_TRUE(std::isnan(x));
}

// Of another device.
__global__ void lacks_nothing() {}
struct WithPointer {
  int count;
  const float* values;
};
__global__ void reads_pointer(const float* values, float* out) { out[threadIdx.x] = values[threadIdx.x]; }
__global__ void reads_struct(WithPointer from, float* out) { out[threadIdx.x] = from.values[threadIdx.x]; }

TEST(PlantedBugs, AKernelMayNotGetAnotherDevicesMemory) {
  const simt::WithDevices two(2);
  const DeviceArray<float> there(kThreads);
  simt::use_device(1);
  const DeviceArray<float> here(kThreads);
  const DeviceArray<float> out(kThreads);
  EXPECT_NO_THROW(launch({.block = {kThreads}}, reads_pointer, here.data(), out.data()));
  const auto foreign = AllOf(HasSubstr("a kernel on device 1 gets an address in an array of 512 bytes on device 0"),
                             HasSubstr("planted_bugs_test.cpp"));
  EXPECT_THAT(error_of([&] { launch({.block = {1}}, reads_pointer, there.data(), out.data()); }), foreign);
  EXPECT_THAT(error_of([&] { launch({.block = {1}}, reads_pointer, there.data() + 5, out.data()); }), foreign);
  EXPECT_THAT(error_of([&] {
                launch({.block = {1}}, reads_struct, WithPointer{3, there.data()}, out.data());
              }),
              foreign);
  simt::use_device(0);
  EXPECT_NO_THROW(there.to_host());
}

TEST(PlantedBugs, ACopyOrLaunchMayNotUseAnotherDevicesStream) {
  const simt::WithDevices two(2);
  const DeviceArray<float> there(kThreads);
  void* stream = cuda::make_stream();
  simt::use_device(1);
  const DeviceArray<float> here(kThreads);
  std::vector<float> host(kThreads);
  const auto copied = [&](const DeviceArray<float>& array, std::size_t count, void* on) {
    return error_of([&] { cuda::copy_to_host(host.data(), array.data(), count * sizeof(float), on); });
  };
  EXPECT_EQ(copied(there, kThreads, stream), "");
  EXPECT_THAT(copied(here, kThreads, stream), HasSubstr("on device 0 is at an array of 512 bytes on device 1"));
  EXPECT_THAT(copied(there, kThreads, nullptr), HasSubstr("on device 1 is at an array of 512 bytes on device 0"));
  EXPECT_THAT(copied(here, kThreads + 1, nullptr), HasSubstr("which ends before"));
  EXPECT_THAT(error_of([&] { cuda::fill_with_zeros(host.data(), 4, stream); }), HasSubstr("an address of no device"));
  EXPECT_THAT(error_of([&] { launch({.stream = stream}, lacks_nothing); }),
              HasSubstr("a stream of device 0 on a thread that uses device 1"));
  EXPECT_THAT(error_of([] { simt::use_device(2); }), HasSubstr("device 2, expected one below 2"));
  cuda::wait_for(stream);
  cuda::destroy_stream(stream);
}

// Masks. Each kernel's mistake is on the line that its test names.
constexpr int kOwnLane = __LINE__ + 1;
__global__ void lacks_own_lane() { __syncwarp(0x0000ffffU); }
constexpr int kReturned = __LINE__ + 3;
__global__ void returns_early(int count) {
  if (static_cast<int>(threadIdx.x) >= count) return;
  __shfl_down_sync(kAllLanes, 1, 1);
}
constexpr int kDisagree = __LINE__ + 1;
__global__ void disagree() { __ballot_sync(threadIdx.x % 2 == 0 ? kAllLanes : 0xaaaaaaaaU, true); }
constexpr int kOutside = __LINE__ + 1;
__global__ void reads_outside() { __shfl_sync(threadIdx.x < 16 ? 0xffffU : 0xffff0000U, 1, 20); }
constexpr int kPartial = __LINE__ + 1;
__global__ void partial_warp() { __any_sync(kAllLanes, true); }

TEST(PlantedBugs, WrongMasksAreNamedByLineBlockAndThread) {
  const auto found = [](void (*kernel)(), unsigned threads) {
    return error_of([&] { launch({.block = {threads}}, kernel); });
  };
  EXPECT_THAT(found(lacks_own_lane, 32),
              AllOf(HasSubstr(line(kOwnLane)), HasSubstr("__syncwarp"), HasSubstr("block (0, 0, 0), thread (16, 0, 0)"),
                    HasSubstr("isn't in its own mask 0x0000ffff")));
  EXPECT_THAT(error_of([] { launch({.block = {64}}, returns_early, 40); }),
              AllOf(HasSubstr(line(kReturned)), HasSubstr("has returned")));
  EXPECT_THAT(found(disagree, 32), AllOf(HasSubstr(line(kDisagree)), HasSubstr("masks must be equal or apart")));
  EXPECT_THAT(found(reads_outside, 32),
              AllOf(HasSubstr(line(kOutside)), HasSubstr("lane 20, which isn't in mask 0x0000ffff")));
  EXPECT_THAT(found(partial_warp, 40),
              AllOf(HasSubstr(line(kPartial)), HasSubstr("thread (32, 0, 0)"), HasSubstr("its warp has 8 threads")));
}

constexpr int kDivergent = __LINE__ + 3;
__global__ void diverges() {
  if (threadIdx.x < 16) {
    __syncthreads();
  } else {
    __syncwarp();
  }
}
constexpr int kOneSided = __LINE__ + 2;
__global__ void returns_before_barrier() {
  if (threadIdx.x != 77) __syncthreads();
}
constexpr int kTwoBarriers = __LINE__ + 3;
__global__ void two_barriers() {
  if (threadIdx.x % 2 == 0) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
constexpr int kTwoOperations = __LINE__ + 3;
__global__ void two_operations() {
  if (threadIdx.x == 0) {
    __ballot_sync(kAllLanes, true);
  } else {
    __shfl_sync(kAllLanes, 1, 0);
  }
}

TEST(PlantedBugs, ADeadlockIsNamedByBlockThreadsAndLines) {
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    const simt::WithSchedule with({.seed = seed});
    EXPECT_THAT(error_of([] { launch({.grid = {3}, .block = {32}}, diverges); }),
                AllOf(HasSubstr("deadlock: block"), HasSubstr("16 threads, the first of them (0, 0, 0)"),
                      HasSubstr("__syncthreads at"), HasSubstr(line(kDivergent)),
                      HasSubstr("16 threads, the first of them (16, 0, 0)"), HasSubstr(line(kDivergent + 2))));
    EXPECT_THAT(error_of([] { launch({.block = {kThreads}}, returns_before_barrier); }),
                AllOf(HasSubstr(line(kOneSided)), HasSubstr("ret")));
    EXPECT_THAT(error_of([] { launch({.block = {64}}, two_barriers); }),
                AllOf(HasSubstr("waits at another"), HasSubstr(line(kTwoBarriers)), HasSubstr(line(kTwoBarriers + 2))));
    EXPECT_THAT(error_of([] { launch({.block = {32}}, two_operations); }),
                AllOf(HasSubstr(line(kTwoOperations)), HasSubstr(line(kTwoOperations + 2))));
  }
}

__global__ void fails_in_block(int block) {
  if (static_cast<int>(blockIdx.x) == block && threadIdx.x == 5) return;
  __syncthreads();
}

TEST(PlantedBugs, AfterAFailureTheNextLaunchIsSound) {
  for (int round = 0; round < 3; ++round) {
    EXPECT_THAT(error_of([] { launch({.grid = {4}, .block = {kThreads}}, fails_in_block, 2); }),
                HasSubstr("block (2, 0, 0)"));
    EXPECT_TRUE(same_under_schedules(reversed<true>));
  }
}

}  // namespace
}  // namespace depthkv
