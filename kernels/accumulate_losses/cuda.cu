// SPDX-License-Identifier: Apache-2.0
#include <string>
#include <utility>
#include <vector>

#include "depthkv/error.h"
#include "kernels/accumulate_losses/accumulate_losses.h"
#include "kernels/accumulate_losses/device.cuh"
#include "kernels/accumulate_losses/launchers.h"

namespace depthkv::cuda {
namespace {

unsigned blocks_of(std::int64_t count, int size) { return static_cast<unsigned>((count + size - 1) / size); }

// Calls run with a width as a constant.
template <class Run>
void with_width(std::int64_t columns, Run run) {
  switch (columns / 32) {
    case 1:
      return run(std::integral_constant<int, 1>{});
    case 2:
      return run(std::integral_constant<int, 2>{});
    case 3:
      return run(std::integral_constant<int, 3>{});
    case 4:
      return run(std::integral_constant<int, 4>{});
    default:
      return run(std::integral_constant<int, kMostWidth>{});
  }
}

LossBlock block_of(const LossRows& rows) { return {rows.weights, rows.values, static_cast<int>(rows.rows)}; }

// A KV head's rankings, some of them, on one lane.
class Walk {
 public:
  Walk(Lane& lane, const LossInput& input, std::int64_t first_ranking, std::int64_t rankings)
      : lane_(lane), input_(input), rankings_(rankings) {
    entries_ = static_cast<std::int64_t>(input.rankings.front().size());
    std::vector<unsigned> order;
    for (std::int64_t i = first_ranking; i < first_ranking + rankings; ++i) {
      const auto ranking = input.rankings[static_cast<std::size_t>(i)];
      order.insert(order.end(), ranking.begin(), ranking.end());
    }
    order_ = lane.upload(std::span<const unsigned>(order));
    values_ = upload_values(lane, input.values);
    sums_ = lane.zeros<double>(static_cast<std::size_t>(2 * rankings * entries_));
  }

  // Rows [first, first + count) of all.
  void add(std::int64_t first, std::int64_t count, double& energy) {
    const LossRows rows = upload_rows(lane_, input_.attention, first, count, values_, input_.values.columns);
    const Sums unpruned = weighted_sums(lane_, rows, nullptr, entries_, rows.tokens - entries_);
    const Sums full = weighted_sums(lane_, rows, nullptr, 0, entries_, &unpruned);
    const auto outputs = lane_.download(full.values, static_cast<std::size_t>(rows.rows * rows.columns));
    // Last: it adds to what all parts share, and whatever finds no memory has these rows done again.
    if (entries_ > 0) walk(rows, {unpruned.values, unpruned.mass, full.values});
    lane_.wait();
    for (const float o : outputs) energy += static_cast<double>(o) * static_cast<double>(o);
  }

  // [mass, error][ranking][entry]
  std::span<const double> sums() {
    const auto all = lane_.download(sums_, static_cast<std::size_t>(2 * rankings_ * entries_));
    lane_.wait();
    return all;
  }

 private:
  void walk(const LossRows& rows, const Outputs& outputs) {
    const unsigned blocks = blocks_of(rows.rows, kLossRows);
    auto* parts = lane_.room<double>(static_cast<std::size_t>(2 * rankings_ * entries_) * blocks);
    const auto curves = static_cast<unsigned>(2 * rankings_);
    const auto count = static_cast<int>(entries_);
    with_width(rows.columns, [&](auto width) {
      launch({.grid = {blocks, static_cast<unsigned>(rankings_)}, .block = {kLossThreads}, .stream = lane_.stream()},
             walk_kernel<width()>, block_of(rows), order_, count, outputs, parts);
    });
    launch({.grid = {blocks_of(entries_, kPartThreads), curves}, .block = {kPartThreads}, .stream = lane_.stream()},
           add_parts_kernel, parts, static_cast<int>(blocks), count, sums_);
  }

  Lane& lane_;
  const LossInput& input_;
  std::int64_t rankings_;
  std::int64_t entries_ = 0;
  const unsigned* order_ = nullptr;
  const float* values_ = nullptr;
  double* sums_ = nullptr;
};

}  // namespace

std::int64_t padded_columns(std::int64_t dimensions) {
  if (dimensions > 32 * kMostWidth)
    throw Error("CUDA: heads of " + std::to_string(dimensions) + " dimensions, expected at most " +
                std::to_string(32 * kMostWidth) + "; use device: cpu");
  return dimensions > 128 ? 32 * kMostWidth : (dimensions + 31) / 32 * 32;
}

const float* upload_values(Lane& lane, const View& values) {
  return lane.upload(values, padded_columns(values.columns));
}

LossRows upload_rows(Lane& lane, const View& attention, std::int64_t first, std::int64_t count, const float* values,
                     std::int64_t dimensions) {
  const std::int64_t tokens = attention.columns;
  std::vector<const float*> starts;
  for (std::int64_t i = first; i < first + count; ++i)
    starts.push_back(attention.row(i / attention.rows, i % attention.rows).data());
  const float* there = lane.upload_rows(std::span<const float* const>(starts), static_cast<std::size_t>(tokens));
  const std::int64_t rows = (count + kLossRows - 1) / kLossRows * kLossRows;
  auto* weights = lane.room<float>(static_cast<std::size_t>(rows * tokens));
  launch({.grid = {blocks_of(tokens, 32), blocks_of(rows, 32)}, .block = {kTurnThreads}, .stream = lane.stream()},
         turn_over_kernel, there, static_cast<int>(count), static_cast<int>(tokens), weights, static_cast<int>(rows));
  return {weights, values, tokens, rows, padded_columns(dimensions)};
}

Sums weighted_sums(Lane& lane, const LossRows& rows, const unsigned* positions, std::int64_t first, std::int64_t count,
                   const Sums* start) {
  const auto size = static_cast<std::size_t>(rows.rows * rows.columns);
  if (count == 0)
    return start != nullptr ? *start
                            : Sums{lane.zeros<float>(size), lane.zeros<double>(static_cast<std::size_t>(rows.rows))};
  auto* values = lane.room<float>(size);
  auto* mass = lane.room<double>(static_cast<std::size_t>(rows.rows));
  const Order order{positions, static_cast<int>(first), static_cast<int>(count)};
  const Sums from = start != nullptr ? *start : Sums{};
  with_width(rows.columns, [&](auto width) {
    launch({.grid = {blocks_of(rows.rows, kLossRows)}, .block = {kLossThreads}, .stream = lane.stream()},
           weighted_sums_kernel<width()>, block_of(rows), order, from.values, from.mass, values, mass);
  });
  return {values, mass};
}

// Losses of a row block are added to those before it, so that the sums don't depend on how rows are parted.
void accumulate_losses(const LossInput& input, std::span<LossCurves> curves) {
  const std::int64_t rows = input.attention.heads * input.attention.rows;
  if (rows == 0 || curves.empty()) return;
  in_parts(static_cast<std::int64_t>(curves.size()), 1, [&](Lane& lane, std::int64_t first, std::int64_t count) {
    Walk walk(lane, input, first, count);
    double energy = 0;
    lane.in_parts(rows, kLossRows, [&](std::int64_t row, std::int64_t part) { walk.add(row, part, energy); });
    const std::span<const double> sums = walk.sums();
    const std::size_t n = input.rankings.front().size();
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
      LossCurves& to = curves[static_cast<std::size_t>(first) + i];
      for (std::size_t k = 0; k < n; ++k) {
        to.mass[k] += sums[i * n + k];
        to.error[k] += sums[(static_cast<std::size_t>(count) + i) * n + k];
      }
      to.mass[n] += static_cast<double>(rows);
      to.energy += energy;
      to.rows += rows;
    }
  });
}

}  // namespace depthkv::cuda
