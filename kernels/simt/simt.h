// SPDX-License-Identifier: Apache-2.0
// Runs device code on the CPU, for tests only. Each CUDA thread is a fiber, each block runs on one thread of the
// operating system, blocks are shared out to a few of them. What a kernel gets wrong is an Error that names block,
// thread and line: threads that wait for each other for ever, or meet at different barriers, masks that don't fit the
// lanes that are there, shared memory written past its end. What depends on the order of threads shows as results that
// differ between seeds, and under ThreadSanitizer as a race. See docs/decisions/015-device-code-on-the-cpu.md.
#pragma once
#include <cstddef>
#include <cstdint>
#include <source_location>

// CUDA's names, as its headers spell them.
struct uint3 {
  unsigned x = 0, y = 0, z = 0;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

namespace depthkv::simt {

// The order in which threads of a block run, and blocks of a grid. Seed 0: rising, each thread until it waits. Others:
// drawn; with an odd seed one warp runs ahead as far as it can, with an even one all warps mix.
struct Schedule {
  std::uint64_t seed = 0;
  int workers = 2;  // threads of the operating system; under ThreadSanitizer races between blocks need two
};

// Launches follow `schedule` while this lives. Launches of several threads take turns.
class WithSchedule {
 public:
  explicit WithSchedule(Schedule schedule);
  WithSchedule(const WithSchedule&) = delete;
  WithSchedule& operator=(const WithSchedule&) = delete;
  ~WithSchedule();

 private:
  Schedule before_;
};

// What a thread asks of its block. Only the scheduler changes a block, between two threads' turns.
enum class Ask { block_barrier, warp_barrier, shuffle, vote, static_shared, dynamic_shared };
struct Request {
  Ask what = Ask::block_barrier;
  unsigned mask = 0;        // lanes that take part; of the warp's operations
  std::uint64_t value = 0;  // what this lane brings; bytes of shared memory
  int source = 0;           // the lane whose value it wants
  const void* key = nullptr;
  const char* name = nullptr;
  std::source_location where;
};
// The answer: the source's value, the votes' bits, or the address of the memory.
std::uint64_t ask(const Request& request);

struct Launch {
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes = 0;
  void* stream = nullptr;
  std::source_location where;
};
// Calls body(arguments) once per thread of the grid; returns when all have ended. Throws Error if the launch isn't one
// that a device takes, or with the first thing that went wrong in the lowest of the blocks that ran.
void run(const Launch& launch, void (*body)(const void*), const void* arguments);

}  // namespace depthkv::simt
