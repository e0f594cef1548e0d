// SPDX-License-Identifier: Apache-2.0
#include "kernels/device_lane.h"

#include <algorithm>
#include <array>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>

#include "kernels/parallel.h"

namespace depthkv::cuda {
namespace {

constexpr std::size_t kAligned = 256;
constexpr std::size_t kLanes = 2;

}  // namespace

// Of one device.
class Lanes {
 public:
  Lane* take(UseLane::Beside beside) {
    const bool alone = beside == UseLane::Beside::nobody;
    std::unique_lock lock(guard_);
    changed_.wait(lock,
                  [&] { return alone ? std::ranges::count(taken_, true) == 0 : !alone_ && idle_lane() != kLanes; });
    if (alone) trim_those_idle();  // what others left in this one, too, as it might be too small
    const std::size_t i = idle_lane();
    if (lanes_[i] == nullptr) lanes_[i] = std::make_unique<Lane>();
    taken_[i] = true;
    alone_ = alone;
    return lanes_[i].get();
  }

  void give_back(const Lane* lane) {
    {
      const std::scoped_lock lock(guard_);
      for (std::size_t i = 0; i < kLanes; ++i)
        if (lanes_[i].get() == lane) taken_[i] = false;
      alone_ = false;
    }
    changed_.notify_all();
  }

  void trim_idle() {
    const std::scoped_lock lock(guard_);
    trim_those_idle();
  }

 private:
  void trim_those_idle() {
    for (std::size_t i = 0; i < kLanes; ++i)
      if (!taken_[i] && lanes_[i] != nullptr) lanes_[i]->trim();
  }
  std::size_t idle_lane() const {
    std::size_t i = 0;
    while (i < kLanes && taken_[i]) ++i;
    return i;
  }

  std::mutex guard_;
  std::condition_variable changed_;
  std::array<std::unique_ptr<Lane>, kLanes> lanes_;
  std::array<bool, kLanes> taken_{};
  bool alone_ = false;  // who has the only one
};

namespace {

// Those of the device that this thread works for. Never destroyed: CUDA may be gone before.
Lanes& lanes() {
  static std::mutex& guard = *new std::mutex;
  static std::map<int, Lanes>& all = *new std::map<int, Lanes>;
  const int device = device_of_thread();
  use_device(device);
  const std::scoped_lock lock(guard);
  return all[device];
}

std::string mebibytes(std::size_t bytes) { return std::to_string(bytes >> 20U) + " MiB"; }

}  // namespace

OutOfDeviceMemory::OutOfDeviceMemory(std::size_t asked, std::size_t free, std::size_t total)
    : Error("CUDA: no room for " + mebibytes(asked) + ": " + mebibytes(free) + " of the device's " + mebibytes(total) +
            " are free, and smaller parts don't fit either; stop what else uses the device, or say device: cpu") {}

OutOfDeviceMemory::OutOfDeviceMemory(std::size_t asked)
    : Error("CUDA: no room for " + mebibytes(asked) +
            " of pinned memory on the host, and smaller parts don't fit either; free memory, raise the limit of locked "
            "memory (ulimit -l), or say device: cpu") {}

void* Arena::take(std::size_t bytes) {
  const std::size_t rounded = (bytes + kAligned - 1) / kAligned * kAligned;
  if (rounded == 0) return nullptr;
  if (blocks_.empty() && wanted_ > rounded) {
    try {
      add_block(wanted_);
    } catch (const OutOfDeviceMemory&) {
      wanted_ = 0;
    }
  }
  while (!has_room(rounded) && current_ + 1 < blocks_.size()) ++current_;
  if (!has_room(rounded)) add_block(rounded);
  Block& block = blocks_[current_];
  void* memory = block.memory + block.used;
  block.used += rounded;
  return memory;
}

void Arena::add_block(std::size_t bytes) {
  blocks_.push_back({static_cast<char*>(allocate_(bytes)), bytes, 0});
  current_ = blocks_.size() - 1;
}

void Arena::reset(Mark mark) {
  for (std::size_t i = mark.block; i < blocks_.size(); ++i) blocks_[i].used = i == mark.block ? mark.used : 0;
  current_ = mark.block;
}

void Arena::trim(Mark mark) {
  reset(mark);
  while (blocks_.size() > mark.block + 1) {
    release_(blocks_.back().memory);
    blocks_.pop_back();
  }
}

void Arena::reset() {
  std::size_t bytes = 0;
  for (const Block& block : blocks_) bytes += block.bytes;
  reset({});
  if (blocks_.size() < 2) return;
  trim();
  wanted_ = bytes;
}

void Arena::trim() {
  for (const Block& block : blocks_) release_(block.memory);
  blocks_.clear();
  current_ = 0;
  wanted_ = 0;
}

Lane::Lane() : stream_(make_stream()) {}

Lane::~Lane() { destroy_stream(stream_); }

float* Lane::upload(const View& view, std::int64_t stride) {
  return upload_rows<float>(static_cast<std::size_t>(view.heads * view.rows), static_cast<std::size_t>(view.columns),
                            static_cast<std::size_t>(stride), [&](std::size_t i) {
                              const auto row = static_cast<std::int64_t>(i);
                              return view.row(row / view.rows, row % view.rows).data();
                            });
}

std::uint16_t* Lane::upload(const HalfRows& vectors, std::int64_t stride) {
  return upload_rows<std::uint16_t>(static_cast<std::size_t>(vectors.rows * vectors.heads),
                                    static_cast<std::size_t>(vectors.columns), static_cast<std::size_t>(stride),
                                    [&](std::size_t i) {
                                      const auto row = static_cast<std::int64_t>(i);
                                      return vectors.row(row % vectors.heads, row / vectors.heads).data();
                                    });
}

float* Lane::upload_rows(std::span<const float* const> rows, std::size_t columns) {
  return upload_rows<float>(rows.size(), columns, columns, [&](std::size_t i) { return rows[i]; });
}

void Lane::reset() noexcept {
  try {
    wait();
  } catch (const Error&) {
    // Who launched it has been told, or will be by the next call.
  }
  on_device_.reset();
  pinned_.reset();
}

void Lane::trim() noexcept {
  on_device_.trim();
  pinned_.trim();
}

UseLane::UseLane(Beside beside) : lanes_(lanes()), lane_(lanes_.take(beside)) {}

// Nothing of CUDA here but what can't throw: its errors stay, and this may run because of one.
UseLane::~UseLane() {
  lane_->reset();
  lanes_.give_back(lane_);
}

void trim_idle_lanes() { lanes().trim_idle(); }

}  // namespace depthkv::cuda
