// SPDX-License-Identifier: Apache-2.0
// Stacks that take turns on one thread of the operating system. Not a scheduler: whoever holds them says who is next.
#pragma once
#include <cstddef>
#include <memory>

namespace depthkv::simt {

class Fibers {
 public:
  using Entry = void (*)(void* argument, int fiber);

  explicit Fibers(int count);
  Fibers(const Fibers&) = delete;
  Fibers& operator=(const Fibers&) = delete;
  ~Fibers();

  // Before the first resume, on the thread that will call it.
  void begin();
  // Fiber i calls entry(argument, i) when it is resumed next; entry must not throw. Its earlier call must have ended.
  void start(int i, Entry entry, void* argument);
  // From outside of the fibers: returns when fiber i suspends itself or its call ends.
  void resume(int i);
  // From a fiber: returns when it is resumed.
  void suspend();
  bool ended(int i) const;

 private:
  struct Fiber;
  struct Trampoline;

  int count_;
  int running_ = 0;
  void* home_ = nullptr;  // the context that called resume()
  void* home_fake_stack_ = nullptr;
  void* home_tsan_ = nullptr;
  const void* home_bottom_ = nullptr;
  std::size_t home_size_ = 0;
  char* stacks_ = nullptr;
  std::unique_ptr<Fiber[]> fibers_;
};

}  // namespace depthkv::simt
