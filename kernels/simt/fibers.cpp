// SPDX-License-Identifier: Apache-2.0
#include "kernels/simt/fibers.h"

#include <sys/mman.h>

#include <boost/context/detail/fcontext.hpp>
#include <new>

#include "kernels/simt/sanitizers.h"

namespace depthkv::simt {
namespace {

constexpr std::size_t kGuard = 4096;  // below each stack, so that one that is too deep crashes instead of corrupting
constexpr std::size_t kStack = 128 * 1024;
constexpr unsigned kNoOrder = 1;  // a switch by itself orders nothing: that is how races between fibers are seen

}  // namespace

struct Fibers::Fiber {
  void* context = nullptr;
  void* fake_stack = nullptr;
  void* tsan = nullptr;
  Entry entry = nullptr;
  void* argument = nullptr;
  bool ended = true;
};

struct Fibers::Trampoline {
  static void run(boost::context::detail::transfer_t from) {
    auto* fibers = static_cast<Fibers*>(from.data);
    Fiber& fiber = fibers->fibers_[static_cast<std::size_t>(fibers->running_)];
    fibers->home_ = from.fctx;
    if (__sanitizer_finish_switch_fiber != nullptr)
      __sanitizer_finish_switch_fiber(nullptr, &fibers->home_bottom_, &fibers->home_size_);
    fiber.entry(fiber.argument, fibers->running_);
    fiber.ended = true;
    if (__sanitizer_start_switch_fiber != nullptr)
      __sanitizer_start_switch_fiber(nullptr, fibers->home_bottom_, fibers->home_size_);
    if (__tsan_switch_to_fiber != nullptr) __tsan_switch_to_fiber(fibers->home_tsan_, kNoOrder);
    boost::context::detail::jump_fcontext(fibers->home_, nullptr);
  }
};

Fibers::Fibers(int count) : count_(count), fibers_(std::make_unique<Fiber[]>(static_cast<std::size_t>(count))) {
  const std::size_t bytes = static_cast<std::size_t>(count) * (kGuard + kStack);
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) throw std::bad_alloc();
  stacks_ = static_cast<char*>(at);
  for (int i = 0; i < count; ++i) {
    if (mprotect(stacks_ + static_cast<std::size_t>(i) * (kGuard + kStack), kGuard, PROT_NONE) != 0)
      throw std::bad_alloc();
  }
}

Fibers::~Fibers() {
  for (int i = 0; i < count_; ++i)
    if (void* tsan = fibers_[static_cast<std::size_t>(i)].tsan; tsan != nullptr) __tsan_destroy_fiber(tsan);
  munmap(stacks_, static_cast<std::size_t>(count_) * (kGuard + kStack));
}

void Fibers::begin() {
  if (__tsan_get_current_fiber != nullptr) home_tsan_ = __tsan_get_current_fiber();
}

void Fibers::start(int i, Entry entry, void* argument) {
  Fiber& fiber = fibers_[static_cast<std::size_t>(i)];
  char* bottom = stacks_ + static_cast<std::size_t>(i) * (kGuard + kStack) + kGuard;
  fiber.context = boost::context::detail::make_fcontext(bottom + kStack, kStack, &Trampoline::run);
  if (__tsan_create_fiber != nullptr && fiber.tsan == nullptr) fiber.tsan = __tsan_create_fiber(0);  // takes a while
  fiber.entry = entry;
  fiber.argument = argument;
  fiber.ended = false;
}

void Fibers::resume(int i) {
  running_ = i;
  Fiber& fiber = fibers_[static_cast<std::size_t>(i)];
  if (__sanitizer_start_switch_fiber != nullptr) {
    const char* bottom = stacks_ + static_cast<std::size_t>(i) * (kGuard + kStack) + kGuard;
    __sanitizer_start_switch_fiber(&home_fake_stack_, bottom, kStack);
  }
  if (__tsan_switch_to_fiber != nullptr) __tsan_switch_to_fiber(fiber.tsan, kNoOrder);
  fiber.context = boost::context::detail::jump_fcontext(fiber.context, this).fctx;
  if (__sanitizer_finish_switch_fiber != nullptr) __sanitizer_finish_switch_fiber(home_fake_stack_, nullptr, nullptr);
}

void Fibers::suspend() {
  Fiber& fiber = fibers_[static_cast<std::size_t>(running_)];
  if (__sanitizer_start_switch_fiber != nullptr)
    __sanitizer_start_switch_fiber(&fiber.fake_stack, home_bottom_, home_size_);
  if (__tsan_switch_to_fiber != nullptr) __tsan_switch_to_fiber(home_tsan_, kNoOrder);
  home_ = boost::context::detail::jump_fcontext(home_, nullptr).fctx;
  if (__sanitizer_finish_switch_fiber != nullptr)
    __sanitizer_finish_switch_fiber(fiber.fake_stack, &home_bottom_, &home_size_);
}

bool Fibers::ended(int i) const { return fibers_[static_cast<std::size_t>(i)].ended; }

}  // namespace depthkv::simt
