// SPDX-License-Identifier: Apache-2.0
#include "tracer/moments.h"

#include <algorithm>
#include <functional>

namespace depthkv {
namespace {

constexpr std::int64_t kBlock = 64;

std::size_t to_size(std::int64_t value) { return static_cast<std::size_t>(value); }

}  // namespace

Moments::Moments(std::int64_t heads, std::int64_t width)
    : heads_(heads),
      width_(width),
      pending_(to_size(heads)),
      block_sums_(to_size(heads * width)),
      block_products_(to_size(heads * width * width)),
      sums_(block_sums_.size()),
      products_(block_products_.size()) {}

void Moments::add(std::int64_t head, std::span<const float> rows) {
  const std::int64_t stride = heads_ * width_;
  float* sum = block_sums_.data() + head * width_;
  float* product = block_products_.data() + head * width_ * width_;
  for (std::int64_t r = 0; r < static_cast<std::int64_t>(rows.size()) / stride; ++r) {
    const float* x = rows.data() + r * stride + head * width_;
    for (std::int64_t i = 0; i < width_; ++i) {
      sum[i] += x[i];
      float* line = product + i * width_;
      for (std::int64_t j = i; j < width_; ++j) line[j] += x[i] * x[j];
    }
    if (++pending_[to_size(head)] == kBlock) flush(head);
  }
}

void Moments::flush(std::int64_t head) {
  const auto move_on = [](std::span<float> from, double* to) {
    for (std::size_t i = 0; i < from.size(); ++i) to[i] += static_cast<double>(from[i]);
    std::ranges::fill(from, 0.0F);
  };
  const std::int64_t square = width_ * width_;
  move_on(std::span(block_sums_).subspan(to_size(head * width_), to_size(width_)), sums_.data() + head * width_);
  move_on(std::span(block_products_).subspan(to_size(head * square), to_size(square)),
          products_.data() + head * square);
  pending_[to_size(head)] = 0;
}

void Moments::flush() {
  for (std::int64_t head = 0; head < heads_; ++head) flush(head);
}

void Moments::operator+=(Moments& other) {
  flush();
  other.flush();
  std::ranges::transform(sums_, other.sums_, sums_.begin(), std::plus<>());
  std::ranges::transform(products_, other.products_, products_.begin(), std::plus<>());
}

void Moments::mean(std::int64_t count, std::span<float> out) {
  flush();
  const double divisor = static_cast<double>(std::max<std::int64_t>(count, 1));
  for (std::size_t i = 0; i < sums_.size(); ++i) out[i] = static_cast<float>(sums_[i] / divisor);
}

void Moments::second(std::int64_t count, std::span<float> out) {
  flush();
  const double divisor = static_cast<double>(std::max<std::int64_t>(count, 1));
  for (std::int64_t head = 0; head < heads_; ++head) {
    for (std::int64_t i = 0; i < width_; ++i) {
      for (std::int64_t j = i; j < width_; ++j) {
        const std::int64_t start = head * width_ * width_;
        const auto value = static_cast<float>(products_[to_size(start + i * width_ + j)] / divisor);
        out[to_size(start + i * width_ + j)] = value;
        out[to_size(start + j * width_ + i)] = value;
      }
    }
  }
}

}  // namespace depthkv
