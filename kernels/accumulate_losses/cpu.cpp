// SPDX-License-Identifier: Apache-2.0
// Eight rows are the lanes of a vector. Values are gathered into ranking order once per call, attention once per eight
// rows; then one walk along the ranking keeps the running sum of a v in cache and prices every kept count.
#include <array>
#include <vector>

#include "kernels/accumulate_losses/accumulate_losses.h"
#include "kernels/lanes.h"

namespace depthkv::cpu {
namespace {

// Ranked values first, then those at or after the cut: [T][d].
std::vector<float> gather_values(const LossInput& input) {
  const auto d = static_cast<std::size_t>(input.values.columns);
  std::vector<float> gathered;
  gathered.reserve(static_cast<std::size_t>(input.values.rows) * d);
  const auto append = [&](std::int64_t j) {
    const auto row = input.values.row(0, j);
    gathered.insert(gathered.end(), row.begin(), row.end());
  };
  for (const std::uint32_t j : input.ranking) append(j);
  for (auto j = static_cast<std::int64_t>(input.ranking.size()); j < input.values.rows; ++j) append(j);
  return gathered;
}

using Rows = std::array<std::span<const float>, kLanes>;  // missing ones are empty

class Walk {
 public:
  Walk(const LossInput& input, LossCurves& curves)
      : ranking_(input.ranking),
        curves_(curves),
        keys_(static_cast<std::size_t>(input.attention.columns)),
        d_(static_cast<std::size_t>(input.values.columns)),
        values_(gather_values(input)),
        attention_(keys_),
        sum_(d_),
        full_(d_) {}

  void run(const Rows& rows, std::size_t used) {
    used_ = used;
    gather_attention(rows);
    take_full_output();
    const std::size_t n = ranking_.size();
    sum_.assign(d_, Lanes{});
    std::array<double, kLanes> mass{};
    for (std::size_t j = n; j < keys_; ++j) add(j, mass);
    for (std::size_t k = 0; k < n; ++k) {
      price(k, mass);
      add(k, mass);
    }
    curves_.mass[n] += static_cast<double>(used);
    curves_.rows += static_cast<std::int64_t>(used);
  }

 private:
  void gather_attention(const Rows& rows) {
    for (std::size_t j = 0; j < keys_; ++j) {
      const std::size_t from = j < ranking_.size() ? ranking_[j] : j;
      for (std::size_t lane = 0; lane < kLanes; ++lane) attention_[j][lane] = lane < used_ ? rows[lane][from] : 0.0F;
    }
  }

  void take_full_output() {
    full_.assign(d_, Lanes{});
    for (std::size_t j = 0; j < keys_; ++j) {
      const Lanes a = attention_[j];
      const float* value = values_.data() + j * d_;
      for (std::size_t c = 0; c < d_; ++c) full_[c] += a * all(value[c]);
    }
    for (const Lanes& o : full_) {
      for (std::size_t lane = 0; lane < used_; ++lane)
        curves_.energy += static_cast<double>(o[lane]) * static_cast<double>(o[lane]);
    }
  }

  void add(std::size_t j, std::array<double, kLanes>& mass) {
    const Lanes a = attention_[j];
    const float* value = values_.data() + j * d_;
    for (std::size_t c = 0; c < d_; ++c) sum_[c] += a * all(value[c]);
    for (std::size_t lane = 0; lane < kLanes; ++lane) mass[lane] += static_cast<double>(a[lane]);
  }

  void price(std::size_t k, const std::array<double, kLanes>& mass) {
    Lanes inverse{};
    for (std::size_t lane = 0; lane < kLanes; ++lane)
      inverse[lane] = mass[lane] > kNoMass ? static_cast<float>(1.0 / mass[lane]) : 0.0F;
    Lanes even{};
    Lanes odd{};
    std::size_t c = 0;
    for (; c + 1 < d_; c += 2) {
      const Lanes x = sum_[c] * inverse - full_[c];
      const Lanes y = sum_[c + 1] * inverse - full_[c + 1];
      even += x * x;
      odd += y * y;
    }
    if (c < d_) {
      const Lanes x = sum_[c] * inverse - full_[c];
      even += x * x;
    }
    double kept = 0;
    double error = 0;
    for (std::size_t lane = 0; lane < used_; ++lane) {
      kept += mass[lane];
      error += static_cast<double>(even[lane] + odd[lane]);
    }
    curves_.mass[k] += kept;
    curves_.error[k] += error;
  }

  std::span<const std::uint32_t> ranking_;
  LossCurves& curves_;
  std::size_t keys_;
  std::size_t d_;
  std::size_t used_ = 0;
  std::vector<float> values_;
  std::vector<Lanes> attention_;  // [T], in walking order
  std::vector<Lanes> sum_;        // [d]
  std::vector<Lanes> full_;       // [d]
};

}  // namespace

void accumulate_losses(const LossInput& input, LossCurves& curves) {
  Walk walk(input, curves);
  Rows rows;
  std::size_t used = 0;
  for (std::int64_t h = 0; h < input.attention.heads; ++h) {
    for (std::int64_t r = 0; r < input.attention.rows; ++r) {
      rows[used++] = input.attention.row(h, r);
      if (used < kLanes) continue;
      walk.run(rows, used);
      used = 0;
    }
  }
  if (used > 0) walk.run(rows, used);
}

}  // namespace depthkv::cpu
