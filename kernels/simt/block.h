// SPDX-License-Identifier: Apache-2.0
// Runs one block after another: its threads take turns, and what they ask of each other is settled between two turns.
#pragma once
#include <array>
#include <cstdint>
#include <exception>
#include <string>

#include "kernels/simt/fibers.h"
#include "kernels/simt/shared_memory.h"
#include "kernels/simt/simt.h"

namespace depthkv::simt {

inline constexpr int kMostThreads = 1024;
inline constexpr int kLanes = 32;

class Block {
 public:
  Block() : fibers_(kMostThreads) {}

  // Runs the block of that index; throws Error with its first mistake, after all of its threads have been unwound.
  void run(const Launch& launch, uint3 index, void (*body)(const void*), const void* arguments, std::uint64_t seed);

  // On the fiber of a thread.
  std::uint64_t ask(const Request& request);

 private:
  enum class State { ready, waiting, ended };
  struct Thread {
    State state = State::ready;
    bool begun = false;  // has something on its stack
    Request request;
    std::uint64_t answer = 0;
    int barriers = 0;  // passed so far
  };
  // An operation of a warp that some lanes of its mask have reached.
  struct Meeting {
    unsigned mask = 0;  // 0: free
    unsigned arrived = 0;
  };
  struct Warp {
    std::array<Meeting, kLanes> meetings;
    std::array<char, kLanes> order;  // addresses that stand for what a warp barrier orders
    unsigned ended = 0;
  };

  static void enter(void* block, int thread);
  void start(const Launch& launch, uint3 index, std::uint64_t seed);
  int pick();
  void take_turn(int thread);
  void serve(int thread);
  void serve_barrier(int thread);
  void serve_warp(int thread);
  void check_mask(int thread) const;
  void check_meeting(int thread, const Meeting& meeting) const;
  void publish(int warp, Meeting& meeting);
  void end(int thread);
  void unwind();
  void set_ready(int thread);
  int meeting_of(int thread, unsigned mask) const;
  void* order_of(int thread, const Request& request);

  int warp_threads(int warp) const;
  std::string name(int thread) const;
  std::string deadlock() const;
  [[noreturn]] void fail(int thread, const std::string& what) const;

  Fibers fibers_;
  SharedMemory shared_;
  std::array<Thread, kMostThreads> threads_;
  std::array<Warp, kMostThreads / kLanes> warps_;
  std::array<std::uint64_t, kMostThreads / 64> ready_;  // a bit per thread
  Launch launch_;
  uint3 index_;
  void (*body_)(const void*) = nullptr;
  const void* arguments_ = nullptr;
  std::exception_ptr failure_;  // what a thread's own code threw
  std::uint64_t seed_ = 0;
  std::uint64_t random_ = 0;
  int count_ = 0;
  int running_ = 0;
  int ended_ = 0;
  int at_barrier_ = 0;
  bool unwinding_ = false;
  std::array<char, 2> barrier_order_;  // addresses, taken in turns
  char begin_order_ = 0;
  char end_order_ = 0;
};

// The block that this thread of the operating system runs, if any.
extern constinit thread_local Block* current_block;

}  // namespace depthkv::simt
