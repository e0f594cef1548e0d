// SPDX-License-Identifier: Apache-2.0
#include "traces/io_thread.h"

#include <algorithm>
#include <utility>

namespace depthkv {

IoThread::IoThread(std::size_t most_bytes) : most_bytes_(most_bytes), thread_([this] { work(); }) {}

IoThread::~IoThread() { stop(); }

Buffer IoThread::take(std::size_t size) {
  {
    const std::scoped_lock held(guard_);
    // The smallest that is large enough.
    auto best = pool_.end();
    for (auto it = pool_.begin(); it != pool_.end(); ++it) {
      if (it->capacity >= size && (best == pool_.end() || it->capacity < best->capacity)) best = it;
    }
    if (best != pool_.end()) {
      Buffer buffer = std::move(*best);
      pool_.erase(best);
      pooled_bytes_ -= buffer.capacity;
      buffer.size = size;
      return buffer;
    }
  }
  return {std::make_unique_for_overwrite<std::byte[]>(size), size, size};
}

void IoThread::submit(Buffer buffer, Job job) {
  std::unique_lock held(guard_);
  changed_.wait(held, [&] { return failure_ || in_hand_ == 0 || bytes_in_hand_ + buffer.size <= most_bytes_; });
  throw_failure();
  bytes_in_hand_ += buffer.size;
  ++in_hand_;
  tasks_.push_back({std::move(buffer), std::move(job)});
  changed_.notify_all();
}

void IoThread::drain() {
  std::unique_lock held(guard_);
  changed_.wait(held, [&] { return failure_ || in_hand_ == 0; });
  throw_failure();
}

void IoThread::stop() {
  {
    const std::scoped_lock held(guard_);
    stopping_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void IoThread::work() {
  std::unique_lock held(guard_);
  while (true) {
    changed_.wait(held, [&] { return stopping_ || !tasks_.empty(); });
    if (stopping_) return;
    Task task = std::move(tasks_.front());
    tasks_.pop_front();
    if (!failure_) {
      held.unlock();
      std::exception_ptr failure;
      try {
        task.job(task.buffer.bytes());
      } catch (...) {
        failure = std::current_exception();
      }
      held.lock();
      failure_ = failure;
    }
    bytes_in_hand_ -= task.buffer.size;
    --in_hand_;
    recycle(std::move(task.buffer));
    changed_.notify_all();
  }
}

// Keeps buffers up to the bound of what may be in hand; bigger ones push out smaller ones that no longer fit.
void IoThread::recycle(Buffer buffer) {
  pooled_bytes_ += buffer.capacity;
  pool_.push_back(std::move(buffer));
  while (pooled_bytes_ > most_bytes_) {
    const auto smallest = std::min_element(pool_.begin(), pool_.end(),
                                           [](const Buffer& a, const Buffer& b) { return a.capacity < b.capacity; });
    pooled_bytes_ -= smallest->capacity;
    pool_.erase(smallest);
  }
}

void IoThread::throw_failure() const {
  if (failure_) std::rethrow_exception(failure_);
}

}  // namespace depthkv
