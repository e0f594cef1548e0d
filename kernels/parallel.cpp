// SPDX-License-Identifier: Apache-2.0
#include "kernels/parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace depthkv {
namespace {

thread_local Workers* current_workers = nullptr;
thread_local int current_device = 0;

// Loops inside of a loop's body get threads of their own: the workers have work.
struct Unused {
  Unused() : before(std::exchange(current_workers, nullptr)) {}
  Unused(const Unused&) = delete;
  Unused& operator=(const Unused&) = delete;
  ~Unused() { current_workers = before; }
  Workers* before;
};

}  // namespace

UseWorkers::UseWorkers(Workers& workers) : before_(std::exchange(current_workers, &workers)) {}
UseWorkers::~UseWorkers() { current_workers = before_; }

int device_of_thread() { return current_device; }
UseDevice::UseDevice(int device) : before_(std::exchange(current_device, device)) {}
UseDevice::~UseDevice() { current_device = before_; }

int threads_of(int threads) {
  return threads > 0 ? threads : static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
}

void parallel_for(std::int64_t count, int threads, const std::function<void(std::int64_t)>& body) {
  threads = threads_of(threads);
  std::atomic<std::int64_t> next{0};
  std::mutex guard;
  std::exception_ptr failure;
  std::int64_t failed_at = count;

  const int device = device_of_thread();
  const auto work = [&] {
    const UseDevice on(device);
    for (std::int64_t i = next++; i < count; i = next++) {
      try {
        body(i);
      } catch (...) {
        const std::scoped_lock lock(guard);
        if (i < failed_at) {
          failed_at = i;
          failure = std::current_exception();
        }
        next = count;
      }
    }
  };
  const auto useful = static_cast<int>(std::min<std::int64_t>(threads, count));
  if (Workers* workers = current_workers; workers != nullptr && useful > 1) {
    const Unused meanwhile;
    workers->run(useful, work);
  } else {
    std::vector<std::jthread> helpers;
    for (int t = 1; t < useful; ++t) helpers.emplace_back(work);
    work();
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace depthkv
