// SPDX-License-Identifier: Apache-2.0
#include "kernels/device_memory.h"

#include <cstdlib>
#include <cstring>

#include "kernels/simt/memory.h"
#include "kernels/simt/streams.h"

namespace depthkv::cuda {

Devices devices() {
  return {std::vector<std::string>(static_cast<std::size_t>(simt::device_count()), "played on the CPU"), ""};
}

void use_device(int device) { simt::use_device(device); }

std::optional<int> device_of(const void* memory) { return simt::device_of_memory(memory); }

void* allocate(std::size_t bytes) {
  const auto [free, total] = simt::memory_left();
  if (bytes > free) throw OutOfDeviceMemory(bytes, free, total);
  return simt::allocate(bytes);
}

void release(void* memory) noexcept { simt::release(memory); }

void copy_to_device(void* to, const void* from, std::size_t bytes) { copy_to_device(to, from, bytes, nullptr); }

void copy_to_host(void* to, const void* from, std::size_t bytes) { copy_to_host(to, from, bytes, nullptr); }

// Exactly as long as asked for, so that AddressSanitizer sees what is beyond.
void* allocate_pinned(std::size_t bytes) {
  if (simt::pinned_is_scarce()) throw OutOfDeviceMemory(bytes);
  return ::operator new(bytes);
}

void release_pinned(void* memory) noexcept { ::operator delete(memory); }

void* make_stream() { return new simt::Stream; }

void destroy_stream(void* stream) noexcept { delete static_cast<simt::Stream*>(stream); }

void wait_for(void* stream) { simt::catch_up(stream); }

void copy_to_device(void* to, const void* from, std::size_t bytes, void* stream) {
  simt::check_on_device(to, bytes, simt::device_of(stream));
  simt::count_to_device(bytes);
  simt::later(stream, [=] { std::memcpy(to, from, bytes); });
}

void copy_to_host(void* to, const void* from, std::size_t bytes, void* stream) {
  simt::check_on_device(from, bytes, simt::device_of(stream));
  simt::count_to_host(bytes);
  simt::later(stream, [=] { std::memcpy(to, from, bytes); });
}

void copy_on_device(void* to, const void* from, std::size_t bytes, void* stream) {
  simt::check_on_device(to, bytes, simt::device_of(stream));
  simt::check_on_device(from, bytes, simt::device_of(stream));
  simt::later(stream, [=] { std::memcpy(to, from, bytes); });
}

void fill_with_zeros(void* to, std::size_t bytes, void* stream) {
  simt::check_on_device(to, bytes, simt::device_of(stream));
  simt::later(stream, [=] { std::memset(to, 0, bytes); });
}

}  // namespace depthkv::cuda
