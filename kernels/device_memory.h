// SPDX-License-Identifier: Apache-2.0
// What of the CUDA runtime is used: memory, copies, streams. No CUDA header is needed; device_memory.cu calls CUDA,
// simt/device_memory.cpp plays it.
#pragma once
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "depthkv/error.h"

namespace depthkv::cuda {

// The device, or the host memory that it copies from and to, has no room for what was asked for; smaller pieces may fit.
class OutOfDeviceMemory : public Error {
 public:
  OutOfDeviceMemory(std::size_t asked, std::size_t free, std::size_t total);
  explicit OutOfDeviceMemory(std::size_t asked);  // of the host, pinned
};

// Names and sizes of the devices, as users know them; empty where there is none, with the reason.
struct Devices {
  std::vector<std::string> names;
  std::string why_none;
};
Devices devices();

// What this thread does from now on, it does on that device; until then on the first.
void use_device(int device);

// The device whose memory this is; none for the host's.
std::optional<int> device_of(const void* memory);

// All of these throw Error if CUDA does. Copies without a stream are done when they return, after what was launched
// before on the default stream.
void* allocate(std::size_t bytes);  // throws OutOfDeviceMemory
void release(void* memory) noexcept;
void copy_to_device(void* to, const void* from, std::size_t bytes);
void copy_to_host(void* to, const void* from, std::size_t bytes);

// On the host, where copies of a stream go to and come from.
void* allocate_pinned(std::size_t bytes);  // throws OutOfDeviceMemory, too: smaller parts need less of it
void release_pinned(void* memory) noexcept;

// What is put on a stream, a cudaStream_t, is done in order, at any time until wait_for() returns. A stream belongs to
// the device of the thread that made it, and copies what lies there.
void* make_stream();
void destroy_stream(void* stream) noexcept;
void wait_for(void* stream);
void copy_to_device(void* to, const void* from, std::size_t bytes, void* stream);
void copy_to_host(void* to, const void* from, std::size_t bytes, void* stream);
void copy_on_device(void* to, const void* from, std::size_t bytes, void* stream);
void fill_with_zeros(void* to, std::size_t bytes, void* stream);

// Numbers on the device, freed with the object.
template <class T>
class DeviceArray {
 public:
  static_assert(std::is_trivially_copyable_v<T>);

  explicit DeviceArray(std::size_t count)
      : data_(count == 0 ? nullptr : static_cast<T*>(allocate(count * sizeof(T)))), count_(count) {}
  explicit DeviceArray(std::span<const T> from) : DeviceArray(from.size()) {
    if (!from.empty()) copy_to_device(data_, from.data(), from.size_bytes());
  }
  DeviceArray(DeviceArray&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), count_(std::exchange(other.count_, 0)) {}
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
    return *this;
  }
  ~DeviceArray() {
    if (data_ != nullptr) release(data_);
  }

  T* data() const { return data_; }
  std::size_t size() const { return count_; }
  std::vector<T> to_host() const {
    std::vector<T> values(count_);
    if (count_ > 0) copy_to_host(values.data(), data_, count_ * sizeof(T));
    return values;
  }

 private:
  T* data_ = nullptr;
  std::size_t count_ = 0;
};

}  // namespace depthkv::cuda
