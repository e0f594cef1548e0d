// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <deque>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "depthkv/registry.h"

namespace depthkv {

inline std::int64_t total(const std::vector<std::int64_t>& entries) {
  return std::accumulate(entries.begin(), entries.end(), std::int64_t{0});
}

// A sample's ranked layers as allocators see them, from scores written down: [layer][KV head][position]. What they
// measured and prices are up to the test.
class RankedByHand {
 public:
  using Scores = std::vector<std::vector<float>>;  // of one layer

  explicit RankedByHand(const std::vector<Scores>& layers, Protect protect = {}) : protect_(protect) {
    input.shape.tokens = static_cast<std::int64_t>(layers[0][0].size());
    input.protected_per_head = std::min(protect.first + protect.last, input.shape.tokens);
    for (const Scores& scores : layers) {
      const auto heads = static_cast<int>(scores.size());
      input.layers.push_back(static_cast<int>(input.layers.size()));
      input.shape.layers.push_back({2 * heads, heads, 4});
      Tensor tensor(heads, 1, input.shape.tokens);
      for (int g = 0; g < heads; ++g) std::ranges::copy(scores[static_cast<std::size_t>(g)], tensor.row(g, 0).begin());
      rankings_.push_back(ops_for(Device::cpu).rank(tensor.view(), protect));
      scores_.push_back(std::move(tensor));
    }
    input.ranked = [this](int layer) { return heads(layer); };
  }
  RankedByHand(const RankedByHand&) = delete;
  RankedByHand& operator=(const RankedByHand&) = delete;

  HeadInput heads(int layer) const {
    HeadInput ranked;
    ranked.layer = layer;
    ranked.scores = scores_[static_cast<std::size_t>(layer)].view();
    ranked.ranking = &rankings_[static_cast<std::size_t>(layer)];
    ranked.protect = protect_;
    return ranked;
  }

  // The split of a layer allocator.
  std::vector<std::int64_t> split(const PolicySpec& spec, std::int64_t entries) const {
    return builtin_policies().make_layer_allocator(spec).prepare(input)({entries});
  }

  LayerInput input;

 private:
  Protect protect_;
  std::deque<Tensor> scores_;  // views stay valid
  std::deque<Ranking> rankings_;
};

// Layers of `heads` KV heads each, all scores 0.
inline std::vector<RankedByHand::Scores> blank_layers(std::size_t layers, std::size_t tokens, std::size_t heads = 1) {
  return std::vector(layers, RankedByHand::Scores(heads, std::vector<float>(tokens, 0.0F)));
}

}  // namespace depthkv
