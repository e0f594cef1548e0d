// SPDX-License-Identifier: Apache-2.0
// Every CUDA call goes through here.
#pragma once
#include <cuda_runtime.h>

#include <source_location>
#include <string>

#include "depthkv/error.h"

namespace depthkv::cuda {

inline void check(cudaError_t status, std::source_location where = std::source_location::current()) {
  if (status == cudaSuccess) return;
  throw Error(std::string("CUDA: ") + cudaGetErrorString(status) + " (" + where.file_name() + ":" +
              std::to_string(where.line()) + ")");
}

}  // namespace depthkv::cuda
