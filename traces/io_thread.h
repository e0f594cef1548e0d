// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

namespace depthkv {

// Memory for a chunk; its content is undefined until written.
struct Buffer {
  std::unique_ptr<std::byte[]> memory;
  std::size_t capacity = 0;
  std::size_t size = 0;

  std::span<std::byte> bytes() { return {memory.get(), size}; }
};

// One thread that carries out jobs in order, so that the caller goes on computing while chunks are compressed and
// written. Bounded: a caller that is faster waits. After a job has failed the rest is dropped, and the failure comes
// out of every later call.
class IoThread {
 public:
  using Job = std::function<void(std::span<std::byte>)>;

  explicit IoThread(std::size_t most_bytes);
  ~IoThread();  // drops what hasn't begun

  // From the pool of buffers that jobs are done with.
  Buffer take(std::size_t size);
  // Waits while the jobs in hand hold more than most_bytes; one job of any size is always taken.
  void submit(Buffer buffer, Job job);
  // Waits until everything submitted is done.
  void drain();
  // Drops what hasn't begun and ends the thread.
  void stop();

 private:
  struct Task {
    Buffer buffer;
    Job job;
  };
  void work();
  void recycle(Buffer buffer);
  void throw_failure() const;

  const std::size_t most_bytes_;
  mutable std::mutex guard_;
  std::condition_variable changed_;
  std::deque<Task> tasks_;
  std::size_t bytes_in_hand_ = 0;  // of tasks_ and of the one being done
  std::size_t in_hand_ = 0;
  std::vector<Buffer> pool_;
  std::size_t pooled_bytes_ = 0;
  std::exception_ptr failure_;
  bool stopping_ = false;
  std::jthread thread_;  // last: starts when all else is there
};

}  // namespace depthkv
