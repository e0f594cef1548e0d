// SPDX-License-Identifier: Apache-2.0
// What accumulate_losses and set_losses share on a device. Private to the CUDA back end.
#pragma once
#include <cstdint>
#include <span>

#include "depthkv/tensor.h"
#include "kernels/device_lane.h"

namespace depthkv::cuda {

// A KV head's rows and values on the device.
struct LossRows {
  const float* weights = nullptr;  // [token][rows]
  const float* values = nullptr;   // [token][columns]
  std::int64_t tokens = 0;
  std::int64_t rows = 0;     // those that count and zeros, up to a multiple of the device's blocks
  std::int64_t columns = 0;  // of a value, zeros behind the last dimension
};
// Sums over entries of weighted values, and of weights.
struct Sums {
  const float* values = nullptr;  // [rows][columns]
  const double* mass = nullptr;   // [rows]
};

// Throws Error for values of more than 256 dimensions.
std::int64_t padded_columns(std::int64_t dimensions);
const float* upload_values(Lane& lane, const View& values);
// attention [G, R, T], rows [first, first + count) of all G * R, head after head.
LossRows upload_rows(Lane& lane, const View& attention, std::int64_t first, std::int64_t count, const float* values,
                     std::int64_t dimensions);
// Over `positions` (on the device), or [first, first + count) where there are none, added to `start` if there is one.
Sums weighted_sums(Lane& lane, const LossRows& rows, const unsigned* positions, std::int64_t first, std::int64_t count,
                   const Sums* start = nullptr);

}  // namespace depthkv::cuda
