// SPDX-License-Identifier: Apache-2.0
// One walk along the ranking keeps the running sum of a v, a few rows and dimensions at a time, so that it stays in
// registers, and prices every kept count. Values are gathered into the walk's order once per call, attention once per
// few rows. The walk starts with what can't be pruned.
#include <array>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/accumulate_losses/accumulate_losses.h"
#include "kernels/loops/loops.h"

namespace depthkv::cpu {
namespace {

using Rows = std::array<const float*, kWalkRows>;

static_assert(kWalkRows == 4);
typedef float Floats __attribute__((vector_size(kWalkRows * sizeof(float))));
typedef double Doubles __attribute__((vector_size(kWalkRows * sizeof(double))));

class Walk {
 public:
  Walk(const LossInput& input, std::span<const std::uint32_t> ranking, LossCurves& curves)
      : curves_(curves),
        keys_(static_cast<std::size_t>(input.attention.columns)),
        priced_(keys_ - ranking.size()),
        weights_(keys_ * kWalkRows),
        inverse_(keys_ * kWalkRows),
        received_(keys_),
        losses_(ranking.size() * kWalkLanes),
        zeros_(keys_) {
    order_.reserve(keys_);
    for (auto j = static_cast<std::uint32_t>(ranking.size()); j < keys_; ++j) order_.push_back(j);
    order_.insert(order_.end(), ranking.begin(), ranking.end());
    gather_values(input.values);
  }

  // The first `used` rows; those beyond count as all zeros.
  void add(Rows rows, std::size_t used) {
    for (std::size_t r = used; r < kWalkRows; ++r) rows[r] = zeros_.data();
    gather_attention(rows);
    for (const std::vector<float>& values : values_) {
      LossWalk walk{values.data(), weights_.data(), inverse_.data(), keys_, priced_, nullptr};
      std::array<float, kWalkRows * kWalkWidth> full;
      loops().weighted_sums(walk, full.data());
      for (const float o : full) curves_.energy += static_cast<double>(o) * static_cast<double>(o);
      walk.full = full.data();
      loops().walk_losses(walk, losses_.data());
    }
    curves_.rows += static_cast<std::int64_t>(used);
    rows_ += static_cast<double>(used);
  }

  void finish() {
    double mass = 0;
    for (std::size_t i = 0; i < priced_; ++i) mass += received_[i];
    const std::size_t n = keys_ - priced_;
    for (std::size_t k = 0; k < n; ++k) {
      double error = 0;
      for (std::size_t lane = 0; lane < kWalkLanes; ++lane)
        error += static_cast<double>(losses_[k * kWalkLanes + lane]);
      curves_.mass[k] += mass;
      curves_.error[k] += error;
      mass += received_[priced_ + k];
    }
    curves_.mass[n] += rows_;
  }

 private:
  // Dimensions in strips, zeros beyond the last.
  void gather_values(const View& values) {
    const auto d = static_cast<std::size_t>(values.columns);
    for (std::size_t begin = 0; begin < d; begin += kWalkWidth) {
      std::vector<float>& strip = values_.emplace_back(keys_ * kWalkWidth);
      const std::size_t count = std::min(kWalkWidth, d - begin);
      for (std::size_t i = 0; i < keys_; ++i) {
        const auto row = values.row(0, order_[i]).subspan(begin, count);
        std::copy(row.begin(), row.end(), strip.begin() + static_cast<std::ptrdiff_t>(i * kWalkWidth));
      }
    }
  }

  // And what is known before each key of the walk: one over the mass so far.
  void gather_attention(const Rows& rows) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    const Doubles infinite{kInfinity, kInfinity, kInfinity, kInfinity};
    Doubles mass{};
    for (std::size_t i = 0; i < keys_; ++i) {
      const std::uint32_t j = order_[i];
      const Floats weight{rows[0][j], rows[1][j], rows[2][j], rows[3][j]};
      const Doubles divisor = mass > kNoMass ? mass : infinite;
      const Floats inverse = 1.0F / __builtin_convertvector(divisor, Floats);
      std::memcpy(weights_.data() + i * kWalkRows, &weight, sizeof weight);
      std::memcpy(inverse_.data() + i * kWalkRows, &inverse, sizeof inverse);
      const Doubles exact = __builtin_convertvector(weight, Doubles);
      mass += exact;
      received_[i] += (exact[0] + exact[1]) + (exact[2] + exact[3]);
    }
  }

  LossCurves& curves_;
  std::size_t keys_;
  std::size_t priced_;
  std::vector<std::uint32_t> order_;        // [keys] positions
  std::vector<std::vector<float>> values_;  // [strip][keys][kWalkWidth]
  std::vector<float> weights_;              // [keys][kWalkRows]
  std::vector<float> inverse_;              // [keys][kWalkRows]
  std::vector<double> received_;            // [keys] sum of the weights of all rows
  std::vector<float> losses_;               // [ranked keys][kWalkLanes]
  std::vector<float> zeros_;                // [keys]
  double rows_ = 0;
};

void walk_ranking(const LossInput& input, std::span<const std::uint32_t> ranking, LossCurves& curves) {
  Walk walk(input, ranking, curves);
  Rows rows{};
  std::size_t used = 0;
  for (std::int64_t h = 0; h < input.attention.heads; ++h) {
    for (std::int64_t r = 0; r < input.attention.rows; ++r) {
      rows[used++] = input.attention.row(h, r).data();
      if (used < kWalkRows) continue;
      walk.add(rows, used);
      used = 0;
    }
  }
  if (used > 0) walk.add(rows, used);
  walk.finish();
}

}  // namespace

void accumulate_losses(const LossInput& input, std::span<LossCurves> curves) {
  for (std::size_t i = 0; i < curves.size(); ++i) walk_ranking(input, input.rankings[i], curves[i]);
}

}  // namespace depthkv::cpu
