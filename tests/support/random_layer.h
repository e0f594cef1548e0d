// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <random>

#include "support/hand_layer.h"

namespace depthkv {

using Lists = std::vector<std::vector<float>>;

// Causal attention of the last `rows` of `tokens` positions, head by head; rows sum to 1.
inline Lists random_attention(int heads, std::int64_t tokens, std::int64_t rows, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0, 1.5);
  Lists all;
  for (std::int64_t i = 0; i < heads * rows; ++i) {
    std::vector<double> row(static_cast<std::size_t>(tokens));
    const auto seen = static_cast<std::size_t>(tokens - rows + i % rows + 1);
    double sum = 0;
    for (std::size_t j = 0; j < seen; ++j) sum += row[j] = std::exp(normal(random));
    for (double& a : row) a /= sum;
    all.emplace_back(row.begin(), row.end());
  }
  return all;
}

inline Lists random_rows(std::int64_t rows, std::int64_t columns, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Lists all(static_cast<std::size_t>(rows), std::vector<float>(static_cast<std::size_t>(columns)));
  for (auto& row : all)
    for (float& x : row) x = normal(random);
  return all;
}

// Positive, as norms are.
inline Lists random_norms(std::int64_t rows, std::int64_t columns, unsigned seed) {
  Lists all = random_rows(rows, columns, seed);
  for (auto& row : all)
    for (float& x : row) x = std::abs(x) + 0.1F;
  return all;
}

// The first `kept` of a head's order, ascending.
inline std::vector<std::uint32_t> kept_set(std::span<const std::uint32_t> order, std::size_t kept) {
  std::vector<std::uint32_t> set(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(kept));
  std::sort(set.begin(), set.end());
  return set;
}

// Positions by falling score, ties by rising position.
template <class Scores>
std::vector<std::uint32_t> positions_by(const Scores& scores) {
  std::vector<std::uint32_t> order;
  for (std::uint32_t j = 0; j < scores.size(); ++j) order.push_back(j);
  std::stable_sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) { return scores[a] > scores[b]; });
  return order;
}

inline Ranked rank_by_hand(const HandLayer& layer, const PolicySpec& scorer, const PolicySpec& structure,
                           Protect protect = {}) {
  const Registry registry = builtin_policies();
  return registry.make_structure(structure).rank(layer.features_, registry.make_scorer(scorer), protect,
                                                 ops_for(Device::cpu));
}

}  // namespace depthkv
