// SPDX-License-Identifier: Apache-2.0
// How a program gets a CUDA back end: from a build with CUDA, or from a test that plays one.
#pragma once
#include "depthkv/ops.h"
#include "kernels/device_memory.h"

namespace depthkv {

namespace cuda {
const Ops& ops();  // only where CUDA, or what plays it, is linked
}

struct CudaBackend {
  const Ops& (*ops)();
  cuda::Devices (*devices)();
};

// What Device::cuda means while this lives, for tests. Replays are started from the same thread.
class UseCudaBackend {
 public:
  explicit UseCudaBackend(CudaBackend backend);
  UseCudaBackend(const UseCudaBackend&) = delete;
  UseCudaBackend& operator=(const UseCudaBackend&) = delete;
  ~UseCudaBackend();

 private:
  CudaBackend before_;
};

}  // namespace depthkv
