// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <vector>

namespace depthkv {

// Geometry of one attention layer. Layers of one model may differ.
struct LayerShape {
  int query_heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  std::int64_t window =
      0;  // positions that a query sees, its own included; 0: all. A layer with a window is not pruned

  int group() const { return query_heads / kv_heads; }  // query heads that read one KV head
  bool operator==(const LayerShape&) const = default;
};

// What can be pruned: `tokens` cached positions (the cut) in every KV head of every layer.
struct Shape {
  std::int64_t tokens = 0;
  std::vector<LayerShape> layers;

  std::int64_t heads() const;    // KV heads over all layers
  std::int64_t entries() const;  // cached (layer, KV head, position) triples
};

// A global budget: how many entries survive, over all layers and heads.
struct Budget {
  std::int64_t entries = 0;
};

// The only rounding in the project: nearest entry (half up), at least one per (layer, KV head).
// Throws InputError unless 0 < keep <= 1.
Budget budget_from_keep(const Shape& shape, double keep);

}  // namespace depthkv
