// SPDX-License-Identifier: Apache-2.0
#include <sys/mman.h>

#include <cstdlib>
#include <new>

#include "depthkv/tensor.h"

namespace depthkv {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kLarge = 2 * kHugePage;

}  // namespace

void* take_tensor_memory(std::size_t bytes) {
  if (bytes < kLarge) return ::operator new(bytes);
  const std::size_t pages = (bytes + kHugePage - 1) / kHugePage * kHugePage;
  void* memory = std::aligned_alloc(kHugePage, pages);
  if (memory == nullptr) throw std::bad_alloc();
  madvise(memory, pages, MADV_HUGEPAGE);  // where that fails, there are small pages
  return memory;
}

void give_tensor_memory(void* memory, std::size_t bytes) {
  if (bytes < kLarge) return ::operator delete(memory);
  std::free(memory);
}

}  // namespace depthkv
