// SPDX-License-Identifier: Apache-2.0
// Streams as late as CUDA allows: what is put on one is done when it is waited for, or before the next launch on it. So
// a copy that nobody waited for, or whose source was overwritten too early, shows in the results.
#pragma once
#include <functional>
#include <vector>

#include "kernels/simt/memory.h"

namespace depthkv::simt {

struct Stream {
  int device = current_device();
  std::vector<std::function<void()>> waiting;
};

// A null stream is the thread's device's and does everything at once.
int device_of(void* stream);
void later(void* stream, std::function<void()> work);
void catch_up(void* stream);

}  // namespace depthkv::simt
