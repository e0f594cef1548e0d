// SPDX-License-Identifier: Apache-2.0
#include "kernels/simt/memory.h"

#include <atomic>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <string>
#include <utility>

#include "depthkv/error.h"
#include "kernels/simt/guarded.h"

namespace depthkv::simt {
namespace {

struct Array {
  std::size_t bytes = 0;
  int device = 0;
  bool adopted = false;
};

std::size_t device_bytes = std::size_t{80} << 30U;
int devices = 1;
thread_local int device_in_use = 0;
std::mutex guard_of_arrays;
std::atomic<std::size_t> sent = 0;
std::atomic<std::size_t> fetched = 0;
constexpr std::int64_t kNever = -1;
std::atomic<std::int64_t> pinned_left = kNever;  // allocations before the one that fails

// By address.
std::map<std::uintptr_t, Array>& arrays() {
  static std::map<std::uintptr_t, Array> all;
  return all;
}

// The array that an address lies in, its end included: pointers may point there.
const Array* array_at(std::uintptr_t address) {
  auto after = arrays().upper_bound(address);
  if (after == arrays().begin()) return nullptr;
  const auto& [begin, array] = *--after;
  return address - begin <= array.bytes ? &array : nullptr;
}

std::string text_of(const Array& array) {
  return "an array of " + std::to_string(array.bytes) + " bytes on device " + std::to_string(array.device);
}

}  // namespace

int device_count() { return devices; }
int current_device() { return device_in_use; }

void use_device(int device) {
  if (device < 0 || device >= devices)
    throw Error("device " + std::to_string(device) + ", expected one below " + std::to_string(devices));
  device_in_use = device;
}

void* allocate(std::size_t bytes) {
  char* memory = guard(static_cast<char*>(::operator new(guarded_bytes(bytes), std::align_val_t(64))), bytes);
  const std::scoped_lock lock(guard_of_arrays);
  arrays().emplace(reinterpret_cast<std::uintptr_t>(memory), Array{bytes, device_in_use, false});
  return memory;
}

void release(void* memory) noexcept {
  const std::scoped_lock lock(guard_of_arrays);
  const auto found = arrays().find(reinterpret_cast<std::uintptr_t>(memory));
  if (found == arrays().end()) return;
  char* at = static_cast<char*>(memory);
  unguard(at, found->second.bytes);
  arrays().erase(found);
  ::operator delete(at - kGuardBytes, std::align_val_t(64));
}

MemoryLeft memory_left() {
  const std::scoped_lock lock(guard_of_arrays);
  std::size_t used = 0;
  for (const auto& [begin, array] : arrays())
    if (array.device == device_in_use && !array.adopted) used += array.bytes;
  return {used > device_bytes ? 0 : device_bytes - used, device_bytes};
}

void adopt(const void* memory, std::size_t bytes) {
  const std::scoped_lock lock(guard_of_arrays);
  arrays().insert_or_assign(reinterpret_cast<std::uintptr_t>(memory), Array{bytes, device_in_use, true});
}

void disown_all() {
  const std::scoped_lock lock(guard_of_arrays);
  std::erase_if(arrays(), [](const auto& item) { return item.second.adopted; });
}

std::optional<int> device_of_memory(const void* memory) {
  const std::scoped_lock lock(guard_of_arrays);
  const Array* array = array_at(reinterpret_cast<std::uintptr_t>(memory));
  return array == nullptr ? std::nullopt : std::optional(array->device);
}

void check_on_device(const void* memory, std::size_t bytes, int device) {
  if (bytes == 0) return;
  const auto address = reinterpret_cast<std::uintptr_t>(memory);
  const std::scoped_lock lock(guard_of_arrays);
  const Array* array = array_at(address);
  if (array != nullptr && array->device == device && array_at(address + bytes) == array) return;
  const std::string what =
      "device memory: a copy of " + std::to_string(bytes) + " bytes on device " + std::to_string(device) + " is at ";
  if (array == nullptr) throw Error(what + "an address of no device; copy from or to what was allocated there");
  if (array->device != device) throw Error(what + text_of(*array) + "; use a stream of that device");
  throw Error(what + text_of(*array) + ", which ends before; copy less");
}

// Every word is taken for a pointer; no other number is likely to be such an address.
void check_argument(const void* argument, std::size_t bytes, const std::source_location& where) {
  const auto* at = static_cast<const char*>(argument);
  const std::scoped_lock lock(guard_of_arrays);
  for (std::size_t i = 0; i + sizeof(std::uintptr_t) <= bytes; i += sizeof(std::uintptr_t)) {
    std::uintptr_t address = 0;
    std::memcpy(&address, at + i, sizeof address);
    const Array* array = array_at(address);
    if (array == nullptr || array->device == device_in_use) continue;
    throw Error(std::string(where.file_name()) + ":" + std::to_string(where.line()) + ": a kernel on device " +
                std::to_string(device_in_use) + " gets an address in " + text_of(*array) + "; copy the data over");
  }
}

void check_guards() {
  const std::scoped_lock lock(guard_of_arrays);
  for (const auto& [begin, array] : arrays()) {
    if (array.adopted || guards_hold(reinterpret_cast<const char*>(begin), array.bytes)) continue;
    throw Error("device memory: a kernel wrote before or behind an array of " + std::to_string(array.bytes) +
                " bytes; build with the preset asan to see where");
  }
}

Traffic traffic() { return {sent, fetched}; }
void count_to_device(std::size_t bytes) { sent += bytes; }
void count_to_host(std::size_t bytes) { fetched += bytes; }

WithMemory::WithMemory(std::size_t bytes) : before_(std::exchange(device_bytes, bytes)) {}
WithMemory::~WithMemory() { device_bytes = before_; }

WithScarcePinned::WithScarcePinned(std::int64_t before) { pinned_left = before; }
WithScarcePinned::~WithScarcePinned() { pinned_left = kNever; }
bool WithScarcePinned::has_failed() const { return pinned_left == kNever; }
bool pinned_is_scarce() { return pinned_left != kNever && pinned_left-- == 0; }

WithDevices::WithDevices(int count) : before_(std::exchange(devices, count)) {}
WithDevices::~WithDevices() {
  devices = before_;
  device_in_use = 0;
}

}  // namespace depthkv::simt
