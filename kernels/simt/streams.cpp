// SPDX-License-Identifier: Apache-2.0
#include "kernels/simt/streams.h"

#include <utility>

namespace depthkv::simt {

int device_of(void* stream) { return stream == nullptr ? current_device() : static_cast<Stream*>(stream)->device; }

void later(void* stream, std::function<void()> work) {
  if (stream == nullptr) return work();
  static_cast<Stream*>(stream)->waiting.push_back(std::move(work));
}

void catch_up(void* stream) {
  if (stream == nullptr) return;
  for (const auto& work : std::exchange(static_cast<Stream*>(stream)->waiting, {})) work();
}

}  // namespace depthkv::simt
