// SPDX-License-Identifier: Apache-2.0
// Occupancy without a device: reads lines "ARCHITECTURE THREADS REGISTERS STATIC_SHARED DYNAMIC_SHARED", writes the
// percentage of a multiprocessor's threads that such blocks fill. Needs the toolkit's cuda_occupancy.h and any C++
// compiler (bench/static_gpu).
#include <cuda_occupancy.h>
#include <climits>
#include <cstdio>

namespace {

// CUDA C++ Programming Guide, technical specifications per compute capability.
cudaOccDeviceProp properties_of(int architecture) {
  cudaOccDeviceProp device{};
  device.computeMajor = architecture / 10;
  device.computeMinor = architecture % 10;
  device.maxThreadsPerBlock = 1024;
  device.maxThreadsPerMultiprocessor = 2048;
  device.regsPerBlock = 64 * 1024;
  device.regsPerMultiprocessor = 64 * 1024;
  device.warpSize = 32;
  device.sharedMemPerBlock = 48 * 1024;
  device.sharedMemPerMultiprocessor = (architecture < 90 ? 164 : 228) * 1024;
  device.numSms = 1;
  device.sharedMemPerBlockOptin = (architecture < 90 ? 163 : 227) * 1024;
  device.reservedSharedMemPerBlock = 1024;
  return device;
}

}  // namespace

int main() {
  int architecture = 0;
  int threads = 0;
  int registers = 0;
  std::size_t fixed = 0;
  std::size_t dynamic = 0;
  while (std::scanf("%d %d %d %zu %zu", &architecture, &threads, &registers, &fixed, &dynamic) == 5) {
    const cudaOccDeviceProp device = properties_of(architecture);
    cudaOccFuncAttributes kernel{};
    kernel.maxThreadsPerBlock = INT_MAX;
    kernel.numRegs = registers;
    kernel.sharedSizeBytes = fixed;
    kernel.partitionedGCConfig = PARTITIONED_GC_OFF;
    kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
    kernel.maxDynamicSharedSizeBytes = dynamic;
    const cudaOccDeviceState state{};
    cudaOccResult result{};
    if (cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state, threads, dynamic) !=
        CUDA_OCC_SUCCESS) {
      std::fprintf(stderr, "occupancy: cuda_occupancy.h doesn't know sm_%d, or %d threads; see bench/occupancy.cu\n",
                   architecture, threads);
      return 1;
    }
    std::printf("%d\n", 100 * result.activeBlocksPerMultiprocessor * threads / device.maxThreadsPerMultiprocessor);
  }
  return 0;
}
