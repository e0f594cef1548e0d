// SPDX-License-Identifier: Apache-2.0
#include "kernels/simt/simt.h"

#include <algorithm>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "depthkv/error.h"
#include "kernels/simt/block.h"
#include "kernels/simt/memory.h"
#include "kernels/simt/streams.h"

namespace depthkv::simt {
namespace {

Schedule current_schedule;
std::mutex launch_guard;

// Blocks with their stacks are kept from launch to launch: making 1,024 stacks takes longer than most kernels.
std::vector<std::unique_ptr<Block>>& pool() {
  static std::vector<std::unique_ptr<Block>> blocks;
  return blocks;
}

std::string text_of(dim3 extent) {
  return std::to_string(extent.x) + " x " + std::to_string(extent.y) + " x " + std::to_string(extent.z);
}

// CUDA C++ Programming Guide, technical specifications.
void check_launch(const Launch& launch) {
  const dim3 grid = launch.grid;
  const dim3 block = launch.block;
  const auto threads = static_cast<std::uint64_t>(block.x) * block.y * block.z;
  if (threads == 0 || threads > kMostThreads || block.x > 1024 || block.y > 1024 || block.z > 64)
    throw Error("launch: blocks of " + text_of(block) + " threads, expected 1 to 1024, and at most 64 in z");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffU || grid.y > 65535 || grid.z > 65535)
    throw Error("launch: a grid of " + text_of(grid) +
                " blocks, expected at least 1 in each direction, at most 2147483647 in x, 65535 in y and z");
  if (device_of(launch.stream) != current_device())
    throw Error("launch: a stream of device " + std::to_string(device_of(launch.stream)) +
                " on a thread that uses device " + std::to_string(current_device()) + "; use_device() of the stream");
}

std::vector<std::uint64_t> order_of_blocks(std::uint64_t count, std::uint64_t seed) {
  std::vector<std::uint64_t> order(count);
  std::iota(order.begin(), order.end(), 0U);
  if (seed != 0) std::shuffle(order.begin(), order.end(), std::mt19937_64(seed));
  return order;
}

// The failure of the lowest block that failed.
class Failures {
 public:
  void add(std::uint64_t block) {
    const std::scoped_lock lock(guard_);
    if (failure_ != nullptr && block > block_) return;
    failure_ = std::current_exception();
    block_ = block;
  }
  bool any() {
    const std::scoped_lock lock(guard_);
    return failure_ != nullptr;
  }
  void rethrow() const {
    if (failure_ != nullptr) std::rethrow_exception(failure_);
  }

 private:
  std::mutex guard_;
  std::exception_ptr failure_;
  std::uint64_t block_ = 0;
};

}  // namespace

WithSchedule::WithSchedule(Schedule schedule) : before_(std::exchange(current_schedule, schedule)) {}
WithSchedule::~WithSchedule() { current_schedule = before_; }

std::uint64_t ask(const Request& request) {
  if (current_block == nullptr)
    throw Error(std::string(request.where.file_name()) + ":" + std::to_string(request.where.line()) +
                ": device code called outside of a launch; use launch()");
  return current_block->ask(request);
}

void run(const Launch& launch, void (*body)(const void*), const void* arguments) {
  check_launch(launch);
  catch_up(launch.stream);
  const std::scoped_lock lock(launch_guard);
  const dim3 grid = launch.grid;
  const auto order = order_of_blocks(static_cast<std::uint64_t>(grid.x) * grid.y * grid.z, current_schedule.seed);
  const auto workers = std::min(order.size(), static_cast<std::size_t>(std::max(1, current_schedule.workers)));
  while (pool().size() < workers) pool().push_back(std::make_unique<Block>());
  Failures failures;
  const auto work = [&](std::size_t worker) {
    for (std::size_t i = worker; i < order.size() && !failures.any(); i += workers) {
      const std::uint64_t b = order[i];
      const uint3 index{static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                        static_cast<unsigned>(b / grid.x / grid.y)};
      const std::uint64_t seed = current_schedule.seed == 0 ? 0 : current_schedule.seed + 2 * b;
      try {
        pool()[worker]->run(launch, index, body, arguments, seed);
      } catch (...) {
        failures.add(b);
      }
    }
  };
  std::vector<std::jthread> threads;
  for (std::size_t worker = 1; worker < workers; ++worker) threads.emplace_back(work, worker);
  work(0);
  threads.clear();
  failures.rethrow();
  check_guards();
}

}  // namespace depthkv::simt
