// SPDX-License-Identifier: Apache-2.0
#include "tracer/moments.h"

#include <algorithm>
#include <functional>

namespace depthkv {
namespace {

std::size_t to_size(std::int64_t value) { return static_cast<std::size_t>(value); }

}  // namespace

Moments::Moments(std::int64_t heads, std::int64_t width)
    : heads_(heads), width_(width), sums_(to_size(heads * width)), products_(to_size(heads * width * width)) {}

// Products of a block of rows are added in float, blocks in double.
void Moments::add(std::int64_t head, std::span<const float> rows) {
  constexpr std::int64_t kBlock = 64;
  const std::int64_t stride = heads_ * width_;
  const std::int64_t count = static_cast<std::int64_t>(rows.size()) / stride;
  std::vector<float> sum(to_size(width_));
  std::vector<float> product(to_size(width_ * width_));
  for (std::int64_t first = 0; first < count; first += kBlock) {
    std::fill(sum.begin(), sum.end(), 0.0F);
    std::fill(product.begin(), product.end(), 0.0F);
    for (std::int64_t r = first; r < std::min(count, first + kBlock); ++r) {
      const float* x = rows.data() + r * stride + head * width_;
      for (std::int64_t i = 0; i < width_; ++i) {
        sum[to_size(i)] += x[i];
        float* line = product.data() + i * width_;
        for (std::int64_t j = i; j < width_; ++j) line[j] += x[i] * x[j];
      }
    }
    const auto add_to = [](std::span<const float> from, double* to) {
      for (std::size_t i = 0; i < from.size(); ++i) to[i] += static_cast<double>(from[i]);
    };
    add_to(sum, sums_.data() + head * width_);
    add_to(product, products_.data() + head * width_ * width_);
  }
}

void Moments::operator+=(const Moments& other) {
  std::ranges::transform(sums_, other.sums_, sums_.begin(), std::plus<>());
  std::ranges::transform(products_, other.products_, products_.begin(), std::plus<>());
}

void Moments::mean(std::int64_t count, std::span<float> out) const {
  const double divisor = static_cast<double>(std::max<std::int64_t>(count, 1));
  for (std::size_t i = 0; i < sums_.size(); ++i) out[i] = static_cast<float>(sums_[i] / divisor);
}

void Moments::second(std::int64_t count, std::span<float> out) const {
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
