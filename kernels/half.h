// SPDX-License-Identifier: Apache-2.0
// IEEE 754 half precision as stored in traces, rounded to nearest even.
#pragma once
#include <cstdint>
#include <span>

namespace depthkv {

std::uint16_t to_half(float value);  // one value, in plain integer arithmetic: what the two below are tested against
float from_half(std::uint16_t half);

// Sizes must be equal.
void to_half(std::span<const float> from, std::span<std::uint16_t> to);
void from_half(std::span<const std::uint16_t> from, std::span<float> to);

}  // namespace depthkv
