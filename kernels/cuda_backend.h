// SPDX-License-Identifier: Apache-2.0
// How a program gets a CUDA back end: from a build with CUDA, or from a test that plays one.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "depthkv/ops.h"
#include "kernels/device_memory.h"

namespace depthkv {

// Only where CUDA, or what plays it, is linked.
namespace cuda {
const Ops& ops();
std::optional<int> device_of(const View& queries, const HalfRows& keys);
std::optional<int> device_of(const Logits& logits);
std::shared_ptr<const std::uint16_t> gather(std::span<const HalfRows> pieces);
std::shared_ptr<const std::uint32_t> upload(std::span<const std::uint32_t> words);
}  // namespace cuda

struct CudaBackend {
  const Ops& (*ops)() = nullptr;
  cuda::Devices (*devices)() = nullptr;
  std::optional<int> (*device_of)(const View& queries, const HalfRows& keys) = nullptr;
  std::shared_ptr<const std::uint16_t> (*gather)(std::span<const HalfRows> pieces) = nullptr;
  std::optional<int> (*device_of_logits)(const Logits& logits) = nullptr;
  std::shared_ptr<const std::uint32_t> (*upload)(std::span<const std::uint32_t> words) = nullptr;
};
// How many this machine has, which is how many samples are replayed at a time; one cpu, one reference.
int device_count(Device device);

// The device whose memory holds both, laid out so that attention_sums and attention_maxima of Device::cuda read them
// where they are, on a thread that works for that device. None: they lie elsewhere, or there is no CUDA.
std::optional<int> cuda_device_of(const View& queries, const HalfRows& keys);
// The device whose memory holds logits, where hide_entries of Device::cuda changes them, on a thread that works for it.
std::optional<int> cuda_device_of(const Logits& logits);
// Rows without gaps of several pieces, all in memory of this thread's device, one after the other there.
std::shared_ptr<const std::uint16_t> cuda_gather(std::span<const HalfRows> pieces);
// A copy in memory of this thread's device.
std::shared_ptr<const std::uint32_t> cuda_upload(std::span<const std::uint32_t> words);

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
