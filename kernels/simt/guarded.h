// SPDX-License-Identifier: Apache-2.0
// Memory that notices when something is written before or behind it. Under AddressSanitizer the access itself is
// reported; without, a check afterwards finds that the bytes around have changed.
#pragma once
#include <cstddef>

namespace depthkv::simt {

inline constexpr std::size_t kGuardBytes = 64;

// Bytes that `bytes` of guarded memory take, guards included; a multiple of 64.
std::size_t guarded_bytes(std::size_t bytes);
// Makes guarded memory of what `at` points to, and returns where it begins, 64 bytes further. It is filled with ones,
// which is NaN in every format of floats.
char* guard(char* at, std::size_t bytes);
// Whether the guards around the memory that guard() returned are as they were.
bool guards_hold(const char* memory, std::size_t bytes);
// Back to ordinary memory.
void unguard(char* memory, std::size_t bytes);

}  // namespace depthkv::simt
