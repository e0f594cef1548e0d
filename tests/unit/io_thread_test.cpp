// SPDX-License-Identifier: Apache-2.0
#include "traces/io_thread.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>

namespace depthkv {
namespace {

TEST(IoThread, DoesJobsInOrderWithTheBytesTheyCameWith) {
  IoThread io(64);
  std::vector<int> seen;
  for (int i = 0; i < 200; ++i) {
    Buffer buffer = io.take(static_cast<std::size_t>(1 + i % 100));
    for (std::byte& b : buffer.bytes()) b = static_cast<std::byte>(i);
    io.submit(std::move(buffer), [&seen, i](std::span<std::byte> bytes) {
      EXPECT_EQ(bytes.size(), static_cast<std::size_t>(1 + i % 100));
      EXPECT_EQ(bytes.back(), static_cast<std::byte>(i));
      seen.push_back(i);
    });
  }
  io.drain();
  ASSERT_EQ(seen.size(), 200U);
  for (int i = 0; i < 200; ++i) EXPECT_EQ(seen[static_cast<std::size_t>(i)], i);
}

TEST(IoThread, HoldsNoMoreThanItsBound) {
  IoThread io(100);
  std::atomic<int> in_hand = 0;
  for (int i = 0; i < 100; ++i) {
    Buffer buffer = io.take(40);
    ++in_hand;
    io.submit(std::move(buffer), [&](std::span<std::byte>) { --in_hand; });
    EXPECT_LE(in_hand, 3);  // two of 40 in hand, and the one that has just been done but not yet counted
  }
  io.drain();
  EXPECT_EQ(in_hand, 0);
}

TEST(IoThread, AFailureComesOutOfEveryLaterCallAndDropsTheRest) {
  IoThread io(1000);
  std::atomic<int> after = 0;
  io.submit(io.take(10), [](std::span<std::byte>) { throw std::runtime_error("disk full"); });
  EXPECT_THROW(io.drain(), std::runtime_error);
  EXPECT_THROW(io.submit(io.take(10), [&](std::span<std::byte>) { ++after; }), std::runtime_error);
  EXPECT_THROW(io.drain(), std::runtime_error);
  EXPECT_EQ(after, 0);
}

TEST(IoThread, StopsWithJobsLeft) {
  IoThread io(1000);
  for (int i = 0; i < 20; ++i) io.submit(io.take(10), [](std::span<std::byte>) {});
  io.stop();
}

}  // namespace
}  // namespace depthkv
