// SPDX-License-Identifier: Apache-2.0
#include "kernels/device_memory.h"

#include <cstdlib>
#include <cstring>

#include "kernels/simt/simt.h"
#include "kernels/simt/streams.h"

namespace depthkv::cuda {

Devices devices() { return {{"played on the CPU"}, ""}; }

void* allocate(std::size_t bytes) {
  const auto [free, total] = simt::memory_left();
  if (bytes > free) throw OutOfDeviceMemory(bytes, free, total);
  return simt::allocate(bytes);
}

void release(void* memory) noexcept { simt::release(memory); }

void copy_to_device(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }

void copy_to_host(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }

// Exactly as long as asked for, so that AddressSanitizer sees what is beyond.
void* allocate_pinned(std::size_t bytes) { return ::operator new(bytes); }

void release_pinned(void* memory) noexcept { ::operator delete(memory); }

void* make_stream() { return new simt::Stream; }

void destroy_stream(void* stream) noexcept { delete static_cast<simt::Stream*>(stream); }

void wait_for(void* stream) { simt::catch_up(stream); }

void copy_to_device(void* to, const void* from, std::size_t bytes, void* stream) {
  simt::later(stream, [=] { std::memcpy(to, from, bytes); });
}

void copy_to_host(void* to, const void* from, std::size_t bytes, void* stream) {
  simt::later(stream, [=] { std::memcpy(to, from, bytes); });
}

void fill_with_zeros(void* to, std::size_t bytes, void* stream) {
  simt::later(stream, [=] { std::memset(to, 0, bytes); });
}

}  // namespace depthkv::cuda
