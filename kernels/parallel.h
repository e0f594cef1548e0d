// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <functional>

namespace depthkv {

// What 0 stands for: one per core.
int threads_of(int threads);

// Runs body(0) .. body(count - 1), each once, on up to `threads` threads (0: one per core). Results must not depend on
// which thread runs what. If bodies throw, the exception of the lowest index comes out, after all have stopped.
void parallel_for(std::int64_t count, int threads, const std::function<void(std::int64_t)>& body);

// The device, of several alike, that this thread's ops run on: the first, unless somebody said otherwise.
// parallel_for's threads have it from their caller.
int device_of_thread();
class UseDevice {
 public:
  explicit UseDevice(int device);
  UseDevice(const UseDevice&) = delete;
  UseDevice& operator=(const UseDevice&) = delete;
  ~UseDevice();

 private:
  int before_;
};

// Threads that are there already and would only wait.
class Workers {
 public:
  virtual ~Workers() = default;
  // Calls work() on up to `threads` threads at once, the caller's among them; returns when all calls have. work()
  // doesn't throw.
  virtual void run(int threads, const std::function<void()>& work) = 0;
};

// While it lives, parallel_for on this thread runs on `workers` in place of threads of its own.
class UseWorkers {
 public:
  explicit UseWorkers(Workers& workers);
  UseWorkers(const UseWorkers&) = delete;
  UseWorkers& operator=(const UseWorkers&) = delete;
  ~UseWorkers();

 private:
  Workers* before_;
};

}  // namespace depthkv
