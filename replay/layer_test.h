// SPDX-License-Identifier: Apache-2.0
// Whether layers matter differently at all, or what ablation shows is what chance would.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "depthkv/layer_tests.h"

namespace depthkv {

// What pruning one layer alone cost, [sample][layer].
using LayerDrops = std::vector<std::vector<double>>;

// Null hypothesis: within a sample, which layer a drop belongs to makes no difference. Layers are permuted in every
// sample on its own. Throws Error with fewer than two layers, no sample, rows of different lengths, or values that
// aren't finite.
LayerTest test_equal_layers(const LayerDrops& drops, int permutations, std::uint64_t seed);

// Fewest samples with which the test rejects at `alpha` in at least 80 % of the cases, if further samples are like
// these (drawn from them with replacement). 0: more than `most`.
std::size_t samples_needed(const LayerDrops& drops, double alpha, std::size_t most, std::uint64_t seed);

// Holm's correction (1979) for several tests: adjusted p-values, in the order given.
std::vector<double> holm_adjusted(std::span<const double> p);

}  // namespace depthkv
