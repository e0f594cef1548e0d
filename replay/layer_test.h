// SPDX-License-Identifier: Apache-2.0
// Whether layers matter differently at all, or what ablation shows is what chance would.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace depthkv {

// What pruning one layer alone cost, [sample][layer].
using LayerDrops = std::vector<std::vector<double>>;

struct LayerTest {
  std::size_t samples = 0;
  std::size_t layers = 0;
  double statistic = 0;  // variance over layers of the mean over samples
  // (1 + permutations with at least that statistic) / (1 + permutations): never zero.   Phipson, Smyth 2010
  double p = 1;
  // Share of the variance within samples that layers account for, 0 to 1.
  double eta_squared = 0;
  // Kendall's W: how far samples agree on the order of the layers, 0 to 1 (ties share ranks).
  double kendall_w = 0;
};

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
