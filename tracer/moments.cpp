// SPDX-License-Identifier: Apache-2.0
#include "tracer/moments.h"

#include <algorithm>
#include <functional>

#include "kernels/loops/loops.h"
#include "tracer/index.h"

namespace depthkv {
namespace {

constexpr auto kBlock = static_cast<std::int64_t>(kMomentRows);

}  // namespace

Moments::Moments(std::int64_t heads, std::int64_t width)
    : heads_(heads),
      width_(width),
      pending_(to_size(heads)),
      rows_(to_size(heads * kBlock * width)),
      sums_(to_size(heads * width)),
      products_(to_size(heads * width * width)) {}

void Moments::add(std::int64_t head, std::span<const float> rows) {
  const std::int64_t stride = heads_ * width_;
  for (std::int64_t r = 0; r < static_cast<std::int64_t>(rows.size()) / stride; ++r) {
    std::int64_t& filled = pending_[to_size(head)];
    std::ranges::copy(rows.subspan(to_size(r * stride + head * width_), to_size(width_)),
                      rows_.begin() + (head * kBlock + filled) * width_);
    if (++filled == kBlock) flush(head);
  }
}

void Moments::flush(std::int64_t head) {
  const auto rows = std::span(rows_).subspan(to_size(head * kBlock * width_), to_size(kBlock * width_));
  loops().add_products(rows.data(), to_size(width_), products_.data() + head * width_ * width_);
  double* sum = sums_.data() + head * width_;
  for (std::int64_t r = 0; r < pending_[to_size(head)]; ++r)
    for (std::int64_t i = 0; i < width_; ++i) sum[i] += static_cast<double>(rows[to_size(r * width_ + i)]);
  std::ranges::fill(rows, 0.0F);
  pending_[to_size(head)] = 0;
}

void Moments::flush() {
  for (std::int64_t head = 0; head < heads_; ++head)
    if (pending_[to_size(head)] > 0) flush(head);
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
