// SPDX-License-Identifier: Apache-2.0
// Noise that depends on the sample, the layer, the head and an index, but not on the order or thread that asks for it.
#pragma once
#include <cstdint>

#include "depthkv/policy.h"

namespace depthkv {

class Noise {
 public:
  Noise(std::uint64_t seed, const LayerFeatures& layer, std::int64_t head);

  float uniform(std::uint64_t index) const;  // in [0, 1)
  double gumbel(std::uint64_t index) const;  // standard, unrelated to uniform(index)

 private:
  std::uint64_t stream_;
};

}  // namespace depthkv
