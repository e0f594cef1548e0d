// SPDX-License-Identifier: Apache-2.0
#include "kernels/simt/shared_memory.h"

#include <cstdint>

#include "depthkv/error.h"
#include "kernels/simt/guarded.h"

namespace depthkv::simt {
namespace {

// CUDA C++ Programming Guide, technical specifications: what a block may have, by compute capability. The smallest of
// those that we build for is that of 8.0.
constexpr std::size_t kBlockBytes = 163 * 1024;
constexpr std::size_t kStaticBytes = 48 * 1024;
constexpr std::size_t kArena = kBlockBytes + 33 * (2 * kGuardBytes + 64);
const char kDynamic = 0;  // its address is the key of dynamic memory

}  // namespace

SharedMemory::SharedMemory() : arena_(std::make_unique<char[]>(kArena + 64)) {}

void SharedMemory::begin(std::size_t dynamic_bytes) {
  if (dynamic_bytes > kBlockBytes)
    throw Error("launch: " + std::to_string(dynamic_bytes) + " bytes of dynamic shared memory, expected at most " +
                std::to_string(kBlockBytes) + ", which is what compute capability 8.0 has");
  for (int i = 0; i < count_; ++i) unguard(pieces_[i].memory, pieces_[i].bytes);
  count_ = 0;
  used_ = 0;
  named_bytes_ = 0;
  dynamic_bytes_ = dynamic_bytes;
  if (dynamic_bytes > 0) take(&kDynamic, "dynamic shared memory", dynamic_bytes);
}

char* SharedMemory::take(const void* key, const char* name, std::size_t bytes) {
  if (count_ == kPieces)
    throw Error(std::string("shared memory: ") + name + " is the 33rd piece of a kernel, expected at most 32");
  const auto address = reinterpret_cast<std::uintptr_t>(arena_.get());
  const std::size_t aligned = (64 - address % 64) % 64;
  char* memory = guard(arena_.get() + aligned + used_, bytes);
  used_ += guarded_bytes(bytes);
  pieces_[count_++] = {key, name, memory, bytes};
  return memory;
}

char* SharedMemory::named(const void* key, const char* name, std::size_t bytes) {
  for (int i = 0; i < count_; ++i)
    if (pieces_[i].key == key) return pieces_[i].memory;
  named_bytes_ += bytes;
  if (named_bytes_ > kStaticBytes || named_bytes_ + dynamic_bytes_ > kBlockBytes)
    throw Error(std::string("shared memory: ") + name + " brings the block to " + std::to_string(named_bytes_) +
                " static and " + std::to_string(dynamic_bytes_) + " dynamic bytes, expected at most " +
                std::to_string(kStaticBytes) + " static and " + std::to_string(kBlockBytes) +
                " in all; use smaller tiles");
  return take(key, name, bytes);
}

char* SharedMemory::dynamic() {
  if (dynamic_bytes_ == 0)
    throw Error("shared memory: the kernel uses dynamic shared memory, the launch gave it 0 bytes; set shared_bytes");
  return pieces_[0].memory;
}

void SharedMemory::check() const {
  for (int i = 0; i < count_; ++i) {
    if (guards_hold(pieces_[i].memory, pieces_[i].bytes)) continue;
    throw Error(std::string("shared memory: ") + pieces_[i].name + " has " + std::to_string(pieces_[i].bytes) +
                " bytes, and something was written before or behind them; build with the preset asan to see where");
  }
}

}  // namespace depthkv::simt
