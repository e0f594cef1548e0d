// SPDX-License-Identifier: Apache-2.0
// The shared memory of one block at a time: what its threads name, handed out on first use.
#pragma once
#include <cstddef>
#include <memory>
#include <string>

namespace depthkv::simt {

class SharedMemory {
 public:
  SharedMemory();

  // For a new block, whose launch gave it so many bytes of dynamic memory. All memory is NaN again.
  void begin(std::size_t dynamic_bytes);
  // The memory behind `key`, the same for all threads of the block. Throws Error if a block of a device hasn't as much.
  char* named(const void* key, const char* name, std::size_t bytes);
  // Throws Error if the launch gave none.
  char* dynamic();
  // Throws Error naming what was written past its ends.
  void check() const;

 private:
  struct Piece {
    const void* key = nullptr;
    const char* name = nullptr;
    char* memory = nullptr;
    std::size_t bytes = 0;
  };
  static constexpr int kPieces = 32;

  char* take(const void* key, const char* name, std::size_t bytes);

  std::unique_ptr<char[]> arena_;
  std::size_t used_ = 0;         // of the arena, guards included
  std::size_t named_bytes_ = 0;  // of what is counted against the device's limit for static memory
  std::size_t dynamic_bytes_ = 0;
  Piece pieces_[kPieces];
  int count_ = 0;
};

}  // namespace depthkv::simt
