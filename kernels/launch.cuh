// SPDX-License-Identifier: Apache-2.0
// What device code and its launchers include: the same source is compiled by nvcc, and by the host's compiler for tests
// that run it on the CPU (kernels/simt). Instead of <<<>>>:
//   launch({.grid = blocks, .block = threads, .shared_bytes = 0, .stream = stream}, kernel, arguments...);
// Instead of __shared__:
//   DEPTHKV_SHARED(float[32][33], tile);
//   DEPTHKV_DYNAMIC_SHARED(float, scratch);   // scratch points to the launch's shared_bytes
// Collectives get explicit masks; every thread of a block reaches every barrier, so none returns early in a kernel that
// has one. Every kernel says __launch_bounds__, from which bench/static_gpu knows how it is launched.
#pragma once
#include <cstddef>
#include <source_location>
#include <type_traits>

#ifdef __CUDACC__
#include "kernels/checked.cuh"
#else
#include "kernels/simt/device_names.h"
#endif

#ifdef __CUDACC__
#define DEPTHKV_UNROLL _Pragma("unroll")
#define DEPTHKV_NO_UNROLL _Pragma("unroll 1")
#define DEPTHKV_SHARED(type, name) __shared__ std::type_identity_t<type> name
#define DEPTHKV_DYNAMIC_SHARED(type, name)                         \
  extern __shared__ __align__(16) unsigned char depthkv_dynamic[]; \
  type* name = reinterpret_cast<type*>(depthkv_dynamic)
#else
#define DEPTHKV_UNROLL
#define DEPTHKV_NO_UNROLL
#define DEPTHKV_SHARED(type, name)                \
  static constexpr char depthkv_##name##_key = 0; \
  auto& name = depthkv::simt::shared<type>(&depthkv_##name##_key, #name)
#define DEPTHKV_DYNAMIC_SHARED(type, name) type* name = static_cast<type*>(depthkv::simt::dynamic_shared())
#endif

namespace depthkv::cuda {

inline constexpr unsigned kAllLanes = 0xffffffffU;

// `stream` is a cudaStream_t; null is the default stream.
struct LaunchShape {
  dim3 grid = {};
  dim3 block = {};
  std::size_t shared_bytes = 0;
  void* stream = nullptr;
  std::source_location where = std::source_location::current();
};

// Asynchronous on a device. Throws Error if the launch fails; a grid without blocks does.
template <class... Parameters>
void launch(const LaunchShape& shape, void (*kernel)(Parameters...), std::type_identity_t<Parameters>... arguments) {
  static_assert((std::is_trivially_copyable_v<Parameters> && ...), "arguments are copied to the device byte by byte");
#ifdef __CUDACC__
  constexpr std::size_t kWithoutAsking = 48 * 1024;
  if (shape.shared_bytes > kWithoutAsking)
    check(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.shared_bytes)),
        shape.where);
  kernel<<<shape.grid, shape.block, shape.shared_bytes, static_cast<cudaStream_t>(shape.stream)>>>(arguments...);
  check(cudaGetLastError(), shape.where);
#else
  (simt::check_argument(&arguments, sizeof arguments, shape.where), ...);
  const auto body = [&] { kernel(arguments...); };
  simt::run(
      {shape.grid, shape.block, shape.shared_bytes, shape.stream, shape.where},
      [](const void* call) { (*static_cast<decltype(body)*>(call))(); }, &body);
#endif
}

}  // namespace depthkv::cuda
