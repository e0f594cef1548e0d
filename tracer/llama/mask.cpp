// SPDX-License-Identifier: Apache-2.0
#include "tracer/llama/mask.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "depthkv/error.h"
#include "tracer/llama/graph.h"

namespace depthkv {
namespace {

std::size_t to_size(std::int64_t value) { return static_cast<std::size_t>(value); }

void check_fit(const ModelCard& card, const KeepMask& mask) {
  if (mask.pruned.size() != card.layers.size())
    throw Error(fmt::format("a mask has {} layers, the model {}", mask.pruned.size(), card.layers.size()));
  for (std::size_t layer = 0; layer < card.layers.size(); ++layer)
    if (mask.pruned[layer].size() != to_size(card.layers[layer].kv_heads))
      throw Error(fmt::format("a mask has {} KV heads in layer {}, the model {}", mask.pruned[layer].size(), layer,
                              card.layers[layer].kv_heads));
}

}  // namespace

Mask::Mask(const ModelCard& card, std::span<const KeepMask> masks, std::int64_t tokens)
    : card_(card), runs_(card.layers.size()) {
  for (const KeepMask& mask : masks) check_fit(card, mask);
  for (std::size_t layer = 0; layer < runs_.size(); ++layer) {
    runs_[layer].resize(to_size(card.layers[layer].kv_heads));
    for (std::size_t head = 0; head < runs_[layer].size(); ++head) {
      std::vector<Runs> branches;
      for (const KeepMask& mask : masks) branches.push_back(runs_of(mask.pruned[layer][head], tokens));
      if (std::ranges::any_of(branches, [](const Runs& runs) { return !runs.empty(); }))
        runs_[layer][head] = std::move(branches);
    }
  }
}

Mask::Runs Mask::runs_of(std::span<const std::uint32_t> pruned, std::int64_t tokens) {
  Runs runs;
  for (const std::uint32_t position : pruned) {
    if (position >= tokens)
      throw Error(fmt::format("a mask prunes position {} of a prefix of {} tokens", position, tokens));
    if (!runs.empty() && position < runs.back().end)
      throw Error(fmt::format("a mask's positions are not ascending at {}", position));
    if (!runs.empty() && position == runs.back().end) {
      ++runs.back().end;
    } else {
      runs.push_back({position, std::int64_t{position} + 1});
    }
  }
  return runs;
}

bool Mask::touches(int layer) const {
  if (layer < 0 || to_size(layer) >= runs_.size()) return false;
  return std::ranges::any_of(runs_[to_size(layer)], [](const auto& branches) { return !branches.empty(); });
}

bool Mask::wants(const ggml_tensor& node) {
  // What the softmax reads: the bare product, or the end of soft-capping, which would turn -inf into a finite logit.
  const bool softmax_input = card_.logit_softcap > 0 ? is_softcap_end(node) : is_key_query_product(node);
  return softmax_input && touches(layer_of(*product_under(&node)));
}

void Mask::take(ggml_tensor& node) {
  const int layer = layer_of(*product_under(&node));
  const LayerShape& shape = card_.layers[to_size(layer)];
  const std::int64_t width = node.ne[0];
  if (node.type != GGML_TYPE_F32 || !ggml_is_contiguous(&node) || to_size(node.ne[1]) != row_branches_.size() ||
      node.ne[2] != shape.query_heads || node.ne[3] != 1)
    throw Error(fmt::format("{} is {} [{}, {}, {}, {}], expected adjacent f32 with {} rows and {} heads", node.name,
                            ggml_type_name(node.type), node.ne[0], node.ne[1], node.ne[2], node.ne[3],
                            row_branches_.size(), shape.query_heads));
  const std::size_t plane = row_branches_.size() * to_size(width);
  const bool host = in_host_memory(node);
  for (int head = 0; head < shape.query_heads; ++head) {
    const auto& branches = runs_[to_size(layer)][to_size(head / shape.group())];
    if (branches.empty()) continue;
    if (host) {
      hide(branches, {static_cast<float*>(node.data) + to_size(head) * plane, plane}, width);
      continue;
    }
    scratch_.resize(plane);
    const std::size_t bytes = plane * sizeof(float);
    ggml_backend_tensor_get(&node, scratch_.data(), to_size(head) * bytes, bytes);
    hide(branches, scratch_, width);
    ggml_backend_tensor_set(&node, scratch_.data(), to_size(head) * bytes, bytes);
  }
}

void Mask::hide(const std::vector<Runs>& branches, std::span<float> logits, std::int64_t width) const {
  for (std::size_t row = 0; row < row_branches_.size(); ++row) {
    const std::span<float> line = logits.subspan(row * to_size(width), to_size(width));
    for (const Run& run : branches[row_branches_[row]])
      std::fill(line.begin() + run.begin, line.begin() + run.end, -std::numeric_limits<float>::infinity());
  }
}

}  // namespace depthkv
