// SPDX-License-Identifier: Apache-2.0
// What the sanitizers have to be told about stacks that change and threads that are none. Weak: null in a build without
// the sanitizer, so that the shim's own sources are the same, and uninstrumented, in every build.
#pragma once
#include <cstddef>

extern "C" {
[[gnu::weak]] void __sanitizer_start_switch_fiber(void** fake_stack_save, const void* bottom, std::size_t size);
[[gnu::weak]] void __sanitizer_finish_switch_fiber(void* fake_stack, const void** old_bottom, std::size_t* old_size);
[[gnu::weak]] void __asan_poison_memory_region(const volatile void* at, std::size_t bytes);
[[gnu::weak]] void __asan_unpoison_memory_region(const volatile void* at, std::size_t bytes);
[[gnu::weak]] void* __tsan_get_current_fiber();
[[gnu::weak]] void* __tsan_create_fiber(unsigned flags);
[[gnu::weak]] void __tsan_destroy_fiber(void* fiber);
[[gnu::weak]] void __tsan_switch_to_fiber(void* fiber, unsigned flags);
[[gnu::weak]] void __tsan_acquire(void* at);
[[gnu::weak]] void __tsan_release(void* at);
}

namespace depthkv::simt {

inline void poison(const void* at, std::size_t bytes) {
  if (__asan_poison_memory_region != nullptr) __asan_poison_memory_region(at, bytes);
}
inline void unpoison(const void* at, std::size_t bytes) {
  if (__asan_unpoison_memory_region != nullptr) __asan_unpoison_memory_region(at, bytes);
}
// Whatever came before a release has happened before what comes after an acquire of the same address.
inline void tsan_acquire(void* at) {
  if (__tsan_acquire != nullptr) __tsan_acquire(at);
}
inline void tsan_release(void* at) {
  if (__tsan_release != nullptr) __tsan_release(at);
}

}  // namespace depthkv::simt
