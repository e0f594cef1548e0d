// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <limits>
#include <mutex>
#include <set>

namespace depthkv {

// Items that are worked on side by side, and parts of the work that go in order: an item's turn comes when all before
// it are done.
class Turns {
 public:
  // False when one before has failed.
  bool wait_for(std::int64_t item);
  void done(std::int64_t item);
  void fail(std::int64_t item);

 private:
  std::mutex guard_;
  std::condition_variable changed_;
  std::int64_t now_ = 0;
  std::set<std::int64_t> done_;  // of those after
  std::int64_t failed_ = std::numeric_limits<std::int64_t>::max();
};

// Runs body(0) .. body(count - 1), each once, one on each of so many devices at a time (kernels/parallel.h says how ops
// know theirs). Results must not depend on which device runs what; exceptions come out as parallel_for's do.
void one_on_each_device(std::int64_t count, int devices, const std::function<void(std::int64_t)>& body);

}  // namespace depthkv
