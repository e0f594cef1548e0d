// SPDX-License-Identifier: Apache-2.0
#include "replay/turns.h"

#include <algorithm>
#include <deque>

#include "kernels/parallel.h"

namespace depthkv {
namespace {

class IdleDevices {
 public:
  explicit IdleDevices(int count) {
    for (int device = 0; device < count; ++device) idle_.push_back(device);
  }
  // There is one: as many work as there are devices.
  int take() {
    const std::scoped_lock lock(guard_);
    const int device = idle_.front();
    idle_.pop_front();
    return device;
  }
  void give_back(int device) {
    const std::scoped_lock lock(guard_);
    idle_.push_back(device);
  }

 private:
  std::mutex guard_;
  std::deque<int> idle_;
};

class TakenDevice {
 public:
  explicit TakenDevice(IdleDevices& devices) : devices_(devices), device_(devices.take()), on_(device_) {}
  TakenDevice(const TakenDevice&) = delete;
  TakenDevice& operator=(const TakenDevice&) = delete;
  ~TakenDevice() { devices_.give_back(device_); }

 private:
  IdleDevices& devices_;
  int device_;
  UseDevice on_;
};

}  // namespace

bool Turns::wait_for(std::int64_t item) {
  std::unique_lock lock(guard_);
  changed_.wait(lock, [&] { return failed_ < item || now_ == item; });
  return failed_ >= item;
}

void Turns::done(std::int64_t item) {
  {
    const std::scoped_lock lock(guard_);
    done_.insert(item);
    while (done_.erase(now_) > 0) ++now_;
  }
  changed_.notify_all();
}

void Turns::fail(std::int64_t item) {
  {
    const std::scoped_lock lock(guard_);
    failed_ = std::min(failed_, item);
  }
  changed_.notify_all();
}

void one_on_each_device(std::int64_t count, int devices, const std::function<void(std::int64_t)>& body) {
  IdleDevices idle(devices);
  parallel_for(count, devices, [&](std::int64_t i) {
    const TakenDevice on(idle);
    body(i);
  });
}

}  // namespace depthkv
