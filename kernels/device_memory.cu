// SPDX-License-Identifier: Apache-2.0
#include "kernels/checked.cuh"
#include "kernels/device_memory.h"

namespace depthkv::cuda {

void* allocate(std::size_t bytes) {
  void* memory = nullptr;
  check(cudaMalloc(&memory, bytes));
  return memory;
}

void release(void* memory) noexcept { cudaFree(memory); }

void copy_to_device(void* to, const void* from, std::size_t bytes) {
  check(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice));
}

void copy_to_host(void* to, const void* from, std::size_t bytes) {
  check(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost));
}

void copy_to_device(void* to, const StridedRows& rows) {
  check(cudaMemcpy2D(to, rows.bytes, rows.from, rows.stride, rows.bytes, rows.count, cudaMemcpyHostToDevice));
}

}  // namespace depthkv::cuda
