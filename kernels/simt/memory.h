// SPDX-License-Identifier: Apache-2.0
// Host memory that plays that of one or more devices: not a number until written, checked for writes past its ends
// after each launch. A thread uses one device at a time, and what it does there must not touch another's memory.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <source_location>

namespace depthkv::simt {

int device_count();
int current_device();  // of this thread
// Throws Error if there is no such device.
void use_device(int device);

// On this thread's device.
void* allocate(std::size_t bytes);
void release(void* memory) noexcept;
struct MemoryLeft {
  std::size_t free = 0;
  std::size_t total = 0;
};
MemoryLeft memory_left();

// Memory that somebody else has on the host counts as this thread's device's from now on, until it is taken again or
// disowned; nothing is written around it, so its ends aren't watched.
void adopt(const void* memory, std::size_t bytes);
void disown_all();

// The device that has this, if one does.
std::optional<int> device_of_memory(const void* memory);
// Throws Error unless all of it lies in one array of that device.
void check_on_device(const void* memory, std::size_t bytes, int device);
// Throws Error if a kernel's argument holds an address of memory that isn't this thread's device's.
void check_argument(const void* argument, std::size_t bytes, const std::source_location& where);
// Throws Error if something was written before or behind an array.
void check_guards();

// Bytes that were copied to devices and from them so far.
struct Traffic {
  std::size_t to_device = 0;
  std::size_t to_host = 0;
};
Traffic traffic();
void count_to_device(std::size_t bytes);
void count_to_host(std::size_t bytes);

// Each device has so many bytes while this lives, those in use included.
class WithMemory {
 public:
  explicit WithMemory(std::size_t bytes);
  WithMemory(const WithMemory&) = delete;
  WithMemory& operator=(const WithMemory&) = delete;
  ~WithMemory();

 private:
  std::size_t before_;
};

// While this lives, one allocation of pinned memory fails: the one after `before` others.
class WithScarcePinned {
 public:
  explicit WithScarcePinned(std::int64_t before);
  WithScarcePinned(const WithScarcePinned&) = delete;
  WithScarcePinned& operator=(const WithScarcePinned&) = delete;
  ~WithScarcePinned();
  bool has_failed() const;
};
// Asked once for each allocation.
bool pinned_is_scarce();

// There are so many devices while this lives.
class WithDevices {
 public:
  explicit WithDevices(int count);
  WithDevices(const WithDevices&) = delete;
  WithDevices& operator=(const WithDevices&) = delete;
  ~WithDevices();

 private:
  int before_;
};

}  // namespace depthkv::simt
