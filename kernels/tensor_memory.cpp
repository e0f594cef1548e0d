// SPDX-License-Identifier: Apache-2.0
#include <sys/mman.h>

#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

#include "depthkv/tensor.h"

namespace depthkv {
namespace {

constexpr std::align_val_t kLine{64};  // a cache line, and the widest vector: half of all loads would meet two lines
constexpr std::size_t kPage = std::size_t{4} << 10;
constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kHuge = 2 * kHugePage;            // blocks that get huge pages
constexpr std::size_t kLarge = std::size_t{256} << 10;  // blocks that are kept
#ifdef __SANITIZE_ADDRESS__
constexpr std::size_t kMostKept = 0;  // so that it sees what is used after its time
#else
constexpr std::size_t kMostKept = 32 * kHugePage;
#endif

// Blocks that were given back and wait for the next of their size: the system clears new pages, which takes as long as
// computing what goes into them. Layers of a model are alike, so sizes recur.
class Kept {
 public:
  void* take(std::size_t bytes) {
    const std::scoped_lock lock(guard_);
    for (auto block = blocks_.begin(); block != blocks_.end(); ++block) {
      if (block->bytes != bytes) continue;
      void* memory = block->memory;
      total_ -= bytes;
      blocks_.erase(block);
      return memory;
    }
    return nullptr;
  }

  void give(void* memory, std::size_t bytes) {
    const std::scoped_lock lock(guard_);
    blocks_.push_back({memory, bytes});
    total_ += bytes;
    while (total_ > kMostKept) {
      std::free(blocks_.front().memory);
      total_ -= blocks_.front().bytes;
      blocks_.erase(blocks_.begin());
    }
  }

 private:
  struct Block {
    void* memory;
    std::size_t bytes;
  };
  std::mutex guard_;
  std::vector<Block> blocks_;  // oldest first
  std::size_t total_ = 0;      // bytes
};

// Outlives every tensor.
Kept& kept() {
  static Kept& blocks = *new Kept;
  return blocks;
}

std::size_t page_of(std::size_t bytes) { return bytes < kHuge ? kPage : kHugePage; }
std::size_t whole_pages(std::size_t bytes) {
  const std::size_t page = page_of(bytes);
  return (bytes + page - 1) / page * page;
}

}  // namespace

void* take_tensor_memory(std::size_t bytes) {
  if (bytes < kLarge) return ::operator new(bytes, kLine);
  const std::size_t pages = whole_pages(bytes);
  if (void* memory = kept().take(pages)) return memory;
  void* memory = std::aligned_alloc(page_of(bytes), pages);
  if (memory == nullptr) throw std::bad_alloc();
  if (bytes >= kHuge) madvise(memory, pages, MADV_HUGEPAGE);  // where that fails, there are small pages
  return memory;
}

void give_tensor_memory(void* memory, std::size_t bytes) {
  if (bytes < kLarge) return ::operator delete(memory, kLine);
  kept().give(memory, whole_pages(bytes));
}

}  // namespace depthkv
