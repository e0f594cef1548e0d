// SPDX-License-Identifier: Apache-2.0
// Every CUDA call goes through here.
#pragma once
#include <cuda_runtime.h>

#include <cstddef>
#include <source_location>
#include <string>

#include "depthkv/error.h"

namespace depthkv::cuda {

inline void check(cudaError_t status, std::source_location where = std::source_location::current()) {
  if (status == cudaSuccess) return;
  throw Error(std::string("CUDA: ") + cudaGetErrorString(status) + " (" + where.file_name() + ":" +
              std::to_string(where.line()) + ")");
}

// Floats on the device, freed with the object.
class DeviceFloats {
 public:
  explicit DeviceFloats(std::size_t count) { check(cudaMalloc(&data_, count * sizeof(float))); }
  DeviceFloats(const DeviceFloats&) = delete;
  DeviceFloats& operator=(const DeviceFloats&) = delete;
  ~DeviceFloats() { cudaFree(data_); }

  float* data() const { return data_; }

 private:
  float* data_ = nullptr;
};

}  // namespace depthkv::cuda
