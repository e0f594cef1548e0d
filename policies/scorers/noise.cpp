// SPDX-License-Identifier: Apache-2.0
#include "policies/scorers/noise.h"

#include <cmath>

namespace depthkv {
namespace {

// SplitMix64's finaliser (Steele, Lea, Flood 2014): neighbouring inputs give unrelated outputs.
std::uint64_t mixed(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

}  // namespace

Noise::Noise(std::uint64_t seed, const LayerFeatures& layer, std::int64_t head)
    : stream_(mixed(mixed(seed ^ mixed(layer.sample_seed)) + static_cast<std::uint64_t>(layer.layer) * 0x10000 +
                    static_cast<std::uint64_t>(head))) {}

float Noise::uniform(std::uint64_t index) const {
  return static_cast<float>(mixed(stream_ + index) >> 40) / static_cast<float>(1 << 24);
}

double Noise::gumbel(std::uint64_t index) const {
  // 52 bits and a half: neither 0 nor 1, so that both logarithms are finite.
  const std::uint64_t bits = mixed(mixed(stream_ + index)) >> 12;
  const double u = (static_cast<double>(bits) + 0.5) / static_cast<double>(std::uint64_t{1} << 52);
  return -std::log(-std::log(u));
}

}  // namespace depthkv
