// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <functional>

namespace depthkv {

// Runs body(0) .. body(count - 1), each once, on up to `threads` threads (0: one per core). Results must not depend on
// which thread runs what. If bodies throw, the exception of the lowest index comes out, after all have stopped.
void parallel_for(std::int64_t count, int threads, const std::function<void(std::int64_t)>& body);

}  // namespace depthkv
