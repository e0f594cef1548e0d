// SPDX-License-Identifier: Apache-2.0
// What attention_sums and attention_maxima share on a device. Private to the CUDA back end.
#pragma once
#include <cstdint>

#include "depthkv/tensor.h"
#include "kernels/device_lane.h"

namespace depthkv::cuda {

// What lies in device memory: a lane's copies, or views of an engine's own buffers.
struct DeviceAttention {
  View queries;   // [H, R, d]
  HalfRows keys;  // [T, Hkv, d]
  std::int64_t first = 0;
};

// Whether kernels can read vectors laid out like that: d a multiple of 16, all of them at multiples of 16 bytes.
bool readable(const View& queries, const HalfRows& keys);
// Throws Error unless they can.
void check_readable(const View& queries, const HalfRows& keys);
// Copies both to the device if they lie on the host; else they are taken as they are.
DeviceAttention there(Lane& lane, const View& queries, const HalfRows& keys, std::int64_t first);

}  // namespace depthkv::cuda
