// SPDX-License-Identifier: Apache-2.0
#include "kernels/device_memory.h"

#include "kernels/checked.cuh"

namespace depthkv::cuda {
namespace {

cudaStream_t as_stream(void* stream) { return static_cast<cudaStream_t>(stream); }

void check_allocation(cudaError_t status, std::size_t bytes) {
  if (status != cudaErrorMemoryAllocation) return check(status);
  cudaGetLastError();  // what failed here is no later call's error
  std::size_t free = 0;
  std::size_t total = 0;
  check(cudaMemGetInfo(&free, &total));
  throw OutOfDeviceMemory(bytes, free, total);
}

Devices look_for_devices() {
  Devices found;
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0) {
    found.why_none = status == cudaSuccess ? "no device" : cudaGetErrorString(status);
    cudaGetLastError();  // what failed here is no later call's error
    return found;
  }
  for (int device = 0; device < count; ++device) {
    cudaDeviceProp properties;
    check(cudaGetDeviceProperties(&properties, device));
    found.names.push_back(std::string(properties.name) + ", " + std::to_string(properties.totalGlobalMem >> 20U) +
                          " MiB, sm_" + std::to_string(properties.major) + std::to_string(properties.minor));
  }
  return found;
}

}  // namespace

// Asking for properties takes milliseconds.
Devices devices() {
  static const Devices kFound = look_for_devices();
  return kFound;
}

void use_device(int device) { check(cudaSetDevice(device)); }

std::optional<int> device_of(const void* memory) {
  cudaPointerAttributes attributes;
  check(cudaPointerGetAttributes(&attributes, memory));
  if (attributes.type != cudaMemoryTypeDevice) return std::nullopt;
  return attributes.device;
}

void* allocate(std::size_t bytes) {
  void* memory = nullptr;
  check_allocation(cudaMalloc(&memory, bytes), bytes);
  return memory;
}

void release(void* memory) noexcept { cudaFree(memory); }

// From memory that isn't pinned, the copy returns once all has been read, which is before all is there.
void copy_to_device(void* to, const void* from, std::size_t bytes) {
  check(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice));
  check(cudaStreamSynchronize(nullptr));
}

void copy_to_host(void* to, const void* from, std::size_t bytes) {
  check(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost));
}

void* allocate_pinned(std::size_t bytes) {
  void* memory = nullptr;
  const cudaError_t status = cudaMallocHost(&memory, bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // what failed here is no later call's error
    throw OutOfDeviceMemory(bytes);
  }
  check(status);
  return memory;
}

void release_pinned(void* memory) noexcept { cudaFreeHost(memory); }

void* make_stream() {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}

void destroy_stream(void* stream) noexcept { cudaStreamDestroy(as_stream(stream)); }

void wait_for(void* stream) { check(cudaStreamSynchronize(as_stream(stream))); }

void copy_to_device(void* to, const void* from, std::size_t bytes, void* stream) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, as_stream(stream)));
}

void copy_to_host(void* to, const void* from, std::size_t bytes, void* stream) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, as_stream(stream)));
}

void copy_on_device(void* to, const void* from, std::size_t bytes, void* stream) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, as_stream(stream)));
}

void fill_with_zeros(void* to, std::size_t bytes, void* stream) {
  check(cudaMemsetAsync(to, 0, bytes, as_stream(stream)));
}

}  // namespace depthkv::cuda
