// SPDX-License-Identifier: Apache-2.0
#include "kernels/simt/guarded.h"

#include <cstring>

#include "kernels/simt/sanitizers.h"

namespace depthkv::simt {
namespace {

constexpr unsigned char kGuardValue = 0xa5;
constexpr int kUnset = 0xff;

// The guard behind begins where the memory ends, so that one element too many is seen.
std::size_t behind(std::size_t bytes) { return guarded_bytes(bytes) - kGuardBytes - bytes; }

bool holds(const char* at, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i)
    if (static_cast<unsigned char>(at[i]) != kGuardValue) return false;
  return true;
}

}  // namespace

std::size_t guarded_bytes(std::size_t bytes) { return (bytes + 63) / 64 * 64 + 2 * kGuardBytes; }

char* guard(char* at, std::size_t bytes) {
  unpoison(at, guarded_bytes(bytes));
  char* memory = at + kGuardBytes;
  std::memset(at, kGuardValue, kGuardBytes);
  std::memset(memory, kUnset, bytes);
  std::memset(memory + bytes, kGuardValue, behind(bytes));
  poison(at, kGuardBytes);
  poison(memory + bytes, behind(bytes));
  return memory;
}

bool guards_hold(const char* memory, std::size_t bytes) {
  return holds(memory - kGuardBytes, kGuardBytes) && holds(memory + bytes, behind(bytes));
}

void unguard(char* memory, std::size_t bytes) { unpoison(memory - kGuardBytes, guarded_bytes(bytes)); }

}  // namespace depthkv::simt
