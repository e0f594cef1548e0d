// SPDX-License-Identifier: Apache-2.0
// How ops use a device: a lane is a stream with memory of its own, on the device and pinned on the host, kept from call
// to call. Each device has two, so that while one KV head is worked on, the next one's data is copied there by another
// thread; a third thread waits for a lane. Which device it is, parallel.h's device_of_thread() says.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "depthkv/tensor.h"
#include "kernels/device_memory.h"

namespace depthkv::cuda {

// Memory that is handed out piece by piece and taken back in one go.
class Arena {
 public:
  using Allocate = void* (*)(std::size_t);
  using Release = void (*)(void*) noexcept;
  Arena(Allocate allocate, Release release) : allocate_(allocate), release_(release) {}
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena() { trim(); }

  void* take(std::size_t bytes);

  // What was taken since a mark is free again; trim() also gives it back to the system, by and large.
  struct Mark {
    std::size_t block = 0;
    std::size_t used = 0;
  };
  Mark mark() const { return {current_, blocks_.empty() ? 0 : blocks_[current_].used}; }
  void reset(Mark mark);
  void trim(Mark mark);
  // All of it; what was several blocks will be one.
  void reset();
  void trim();

 private:
  struct Block {
    char* memory = nullptr;
    std::size_t bytes = 0;
    std::size_t used = 0;
  };
  bool has_room(std::size_t bytes) const {
    return current_ < blocks_.size() && blocks_[current_].bytes - blocks_[current_].used >= bytes;
  }
  void add_block(std::size_t bytes);

  Allocate allocate_;
  Release release_;
  std::vector<Block> blocks_;
  std::size_t current_ = 0;  // those behind it are free
  std::size_t wanted_ = 0;   // of the next first block
};

// Gives back the memory of the device's lanes that nobody uses.
void trim_idle_lanes();

class Lane {
 public:
  Lane();
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;
  ~Lane();

  void* stream() const { return stream_; }

  // Device memory, not set to anything. Throws OutOfDeviceMemory.
  template <class T>
  T* room(std::size_t count) {
    return static_cast<T*>(on_device_.take(count * sizeof(T)));
  }
  template <class T>
  T* zeros(std::size_t count) {
    T* to = room<T>(count);
    if (count > 0) fill_with_zeros(to, count * sizeof(T), stream_);
    return to;
  }
  // Copies; the data is read before this returns. Rows are `stride` apart on the device, with zeros behind their
  // columns.
  template <class T>
  T* upload(std::span<const T> from) {
    return upload_rows<T>(1, from.size(), from.size(), [&](std::size_t) { return from.data(); });
  }
  float* upload(const View& view, std::int64_t stride);                         // [head][row][stride]
  std::uint16_t* upload(const HalfRows& vectors, std::int64_t stride);          // [row][head][stride]
  float* upload_rows(std::span<const float* const> rows, std::size_t columns);  // [row][columns]
  // What will be there once wait() has returned, until the next reset().
  template <class T>
  std::span<const T> download(const T* from, std::size_t count) {
    T* to = static_cast<T*>(pinned_.take(count * sizeof(T)));
    if (count > 0) copy_to_host(to, from, count * sizeof(T), stream_);
    return {to, count};
  }
  void wait() { wait_for(stream_); }

  // Calls run(first, count) for parts of [0, total) in order: all at once, or, each time the device has no room, half
  // as many, of multiples of `unit` but for the last. run() waits for what it has put on the stream; what it took is
  // free for the next part. What it did before it threw OutOfDeviceMemory must not matter.
  template <class Run>
  void in_parts(std::int64_t total, std::int64_t unit, Run run) {
    std::int64_t most = total;
    const Arena::Mark mark = on_device_.mark();
    const Arena::Mark pinned_mark = pinned_.mark();
    for (std::int64_t first = 0; first < total;) {
      const std::int64_t count = std::min(most, total - first);
      try {
        run(first, count);
        first += count;
      } catch (const OutOfDeviceMemory&) {
        if (count <= unit) throw;
        most = (count / 2 + unit - 1) / unit * unit;
        wait();
        on_device_.trim(mark);
        trim_idle_lanes();
      }
      on_device_.reset(mark);
      pinned_.reset(pinned_mark);
    }
  }

  // Waits for what is still under way, even if it fails.
  void reset() noexcept;
  void trim() noexcept;

 private:
  // from(i) is the i-th row.
  template <class T, class From>
  T* upload_rows(std::size_t count, std::size_t columns, std::size_t stride, From from) {
    T* there = room<T>(count * stride);
    T* here = static_cast<T*>(pinned_.take(count * stride * sizeof(T)));
    for (std::size_t i = 0; i < count; ++i) {
      std::copy_n(from(i), columns, here + i * stride);
      std::fill_n(here + i * stride + columns, stride - columns, T{});
    }
    if (count * stride > 0) copy_to_device(there, here, count * stride * sizeof(T), stream_);
    return there;
  }

  void* stream_;
  Arena on_device_{allocate, release};
  Arena pinned_{allocate_pinned, release_pinned};
};

class Lanes;

// A lane for as long as this lives; the constructor waits for one, or until nobody has one and nobody will.
class UseLane {
 public:
  enum class Beside { others, nobody };
  explicit UseLane(Beside beside = Beside::others);
  UseLane(const UseLane&) = delete;
  UseLane& operator=(const UseLane&) = delete;
  ~UseLane();
  Lane& operator*() const { return *lane_; }
  Lane* operator->() const { return lane_; }

 private:
  Lanes& lanes_;  // of the device
  Lane* lane_;
};

// Likewise, run(lane, first, count) with a lane for each part. The smallest part that finds no room is tried again when
// nobody else has a lane.
template <class Run>
void in_parts(std::int64_t total, std::int64_t unit, Run run) {
  std::int64_t most = total;
  auto beside = UseLane::Beside::others;
  for (std::int64_t first = 0; first < total;) {
    const std::int64_t count = std::min(most, total - first);
    try {
      const UseLane lane(beside);
      run(*lane, first, count);
      first += count;
      continue;
    } catch (const OutOfDeviceMemory&) {
      if (count <= unit && beside == UseLane::Beside::nobody) throw;
    }
    trim_idle_lanes();
    if (count <= unit) {
      beside = UseLane::Beside::nobody;
    } else {
      most = (count / 2 + unit - 1) / unit * unit;
    }
  }
}

}  // namespace depthkv::cuda
