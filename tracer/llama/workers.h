// SPDX-License-Identifier: Apache-2.0
// The engine's threads, lent to our own loops between two of its operations. They spin for a while before they sleep,
// so that threads of our own would have to share their cores.
#pragma once
#include <cstddef>
#include <vector>

#include "kernels/parallel.h"
#include "tracer/llama/engine.h"

namespace depthkv {

class EngineWorkers : public Workers {
 public:
  explicit EngineWorkers(int threads) : backend_(cpu_backend(threads)) {}

  void run(int threads, const std::function<void()>& work) override;

 private:
  BackendHandle backend_;
  std::vector<std::byte> memory_;  // of the engine's context, reused
};

}  // namespace depthkv
