// SPDX-License-Identifier: Apache-2.0
// Memory of the device, for launchers and for tests that run on a device and without one alike. No CUDA header is
// needed; device_memory.cu calls CUDA, simt/device_memory.cpp plays it.
#pragma once
#include <cstddef>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace depthkv::cuda {

// All of these throw Error if CUDA does. Copies are done when they return, after what was launched before on the
// default stream.
void* allocate(std::size_t bytes);
void release(void* memory) noexcept;
void copy_to_device(void* to, const void* from, std::size_t bytes);
void copy_to_host(void* to, const void* from, std::size_t bytes);
struct StridedRows {
  const void* from = nullptr;  // on the host
  std::size_t count = 0;
  std::size_t bytes = 0;   // of a row
  std::size_t stride = 0;  // bytes from one row to the next
};
void copy_to_device(void* to, const StridedRows& rows);  // one behind the other

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
