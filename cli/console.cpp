// SPDX-License-Identifier: Apache-2.0
#include "cli/console.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <memory>
#include <string>

namespace depthkv {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kQuietSeconds = 2;  // shorter work says nothing
constexpr double kRedrawSeconds = 0.1;
constexpr double kLineSeconds = 10;  // between plain lines

volatile std::sig_atomic_t interrupted = 0;

// The first Ctrl-C asks, the second one kills.
extern "C" void on_interrupt(int) {
  interrupted = 1;
  std::signal(SIGINT, SIG_DFL);
}

class Display {
 public:
  void update(std::string_view stage, std::int64_t done, std::int64_t total, std::string_view what) {
    const Clock::time_point now = Clock::now();
    if (stage != stage_ || done < done_) restart(stage, done, now);
    done_ = done;
    const double elapsed = seconds(started_, now);
    const bool finished = done >= total;
    const bool first = shown_ == Clock::time_point{};
    const double pause = terminal_ ? kRedrawSeconds : kLineSeconds;
    if (elapsed < kQuietSeconds || (!finished && !first && seconds(shown_, now) < pause)) return;
    shown_ = now;
    print(total, what, elapsed, finished);
  }

 private:
  static double seconds(Clock::time_point from, Clock::time_point to) {
    return std::chrono::duration<double>(to - from).count();
  }

  void restart(std::string_view stage, std::int64_t done, Clock::time_point now) {
    stage_ = stage;
    started_ = now;
    begun_at_ = done;
    shown_ = {};
  }

  void print(std::int64_t total, std::string_view what, double elapsed, bool finished) const {
    const auto worked = static_cast<double>(done_ - begun_at_);
    std::string line = fmt::format("{} {}/{}", stage_, done_, total);
    if (worked > 0) {
      const double rate = worked / elapsed;
      line += rate >= 1 ? fmt::format("  {:.1f}/s", rate) : fmt::format("  {} each", duration_text(1 / rate));
      line += finished ? fmt::format("  took {}", duration_text(elapsed))
                       : fmt::format("  {} left", duration_text(static_cast<double>(total - done_) / rate));
    }
    if (!what.empty()) line += fmt::format("  {}", what);
    fmt::print(stderr, "{}{}{}", terminal_ ? "\r\033[K" : "", line, !terminal_ || finished ? "\n" : "");
    std::fflush(stderr);
  }

  const bool terminal_ = isatty(STDERR_FILENO) != 0;
  std::string stage_;
  std::int64_t done_ = 0;
  std::int64_t begun_at_ = 0;
  Clock::time_point started_;
  Clock::time_point shown_;
};

}  // namespace

std::string duration_text(double seconds) {
  const auto whole = static_cast<long>(seconds + 0.5);
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{}:{:02} min", whole / 60, whole % 60);
  return fmt::format("{}:{:02} h", whole / 3600, whole / 60 % 60);
}

Progress console_progress() {
  std::signal(SIGINT, on_interrupt);
  return [display = std::make_shared<Display>()](std::string_view stage, std::int64_t done, std::int64_t total,
                                                 std::string_view what) {
    if (interrupted != 0) throw Interrupted();
    display->update(stage, done, total, what);
  };
}

}  // namespace depthkv
