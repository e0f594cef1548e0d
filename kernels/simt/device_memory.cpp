// SPDX-License-Identifier: Apache-2.0
#include "kernels/device_memory.h"

#include <cstring>

#include "kernels/simt/simt.h"

namespace depthkv::cuda {

void* allocate(std::size_t bytes) { return simt::allocate(bytes); }

void release(void* memory) noexcept { simt::release(memory); }

void copy_to_device(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }

void copy_to_host(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }

void copy_to_device(void* to, const StridedRows& rows) {
  for (std::size_t i = 0; i < rows.count; ++i)
    std::memcpy(static_cast<char*>(to) + i * rows.bytes, static_cast<const char*>(rows.from) + i * rows.stride,
                rows.bytes);
}

}  // namespace depthkv::cuda
