// SPDX-License-Identifier: Apache-2.0
#include "tracer/llama/mask.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "depthkv/error.h"
#include "depthkv/ops.h"
#include "kernels/cuda_backend.h"
#include "kernels/parallel.h"
#include "tracer/index.h"
#include "tracer/llama/graph.h"

namespace depthkv {
namespace {

HiddenSets pruned_by(const ModelCard& card, std::span<const KeepMask> masks, std::int64_t tokens) {
  HiddenSets sets(card, masks.size(), tokens);
  for (std::size_t b = 0; b < masks.size(); ++b) sets.add(b, masks[b].pruned, tokens);
  return sets;
}

Logits logits_of(const ggml_tensor& node, std::size_t rows, int heads) {
  if (node.type != GGML_TYPE_F32 || !ggml_is_contiguous(&node) || to_size(node.ne[1]) != rows || node.ne[2] != heads ||
      node.ne[3] != 1)
    throw Error(fmt::format("{} is {} [{}, {}, {}, {}], expected adjacent f32 with {} rows and {} heads", node.name,
                            ggml_type_name(node.type), node.ne[0], node.ne[1], node.ne[2], node.ne[3], rows, heads));
  return {static_cast<float*>(node.data), node.ne[2], node.ne[1], node.ne[0]};
}

}  // namespace

Mask::Mask(const ModelCard& card, std::span<const KeepMask> masks, std::int64_t tokens)
    : card_(card), by_branch_(pruned_by(card, masks, tokens)), on_device_(card.layers.size()) {}

void Mask::expect(std::vector<std::uint32_t> row_branches) {
  by_row_.reset();
  row_sets_ = std::move(row_branches);
}

void Mask::expect(HiddenSets rows) {
  row_sets_.resize(rows.size());
  std::iota(row_sets_.begin(), row_sets_.end(), 0U);
  by_row_ = std::move(rows);
}

bool Mask::wants(const ggml_tensor& node) {
  // What the softmax reads: the bare product, or the end of soft-capping, which would turn -inf into a finite logit.
  const bool softmax_input = card_.logit_softcap > 0 ? is_softcap_end(node) : is_key_query_product(node);
  return softmax_input && hidden().touches(layer_of(*product_under(&node)));
}

// The scheduler waits for the engine's device before it hands a node over, and the op for its own work.
void Mask::take(ggml_tensor& node) {
  const int layer = layer_of(*product_under(&node));
  const Logits logits = logits_of(node, row_sets_.size(), card_.layers[to_size(layer)].query_heads);
  if (const std::optional<int> device = cuda_device_of(logits)) {
    const UseDevice there(*device);
    ops_for(Device::cuda).hide_entries(logits, hidden_on(*device, layer), row_sets_);
  } else if (in_host_memory(node)) {
    ops_for(Device::cpu).hide_entries(logits, hidden().of(layer), row_sets_);
  } else {
    hide_in_copy(node, hidden().of(layer));
  }
}

// Sets of branches stay on the device from the first decode on; those of rows are used once.
ColumnSets Mask::hidden_on(int device, int layer) {
  ColumnSets sets = hidden().of(layer);
  if (by_row_) return sets;
  OnDevice& there = on_device_[to_size(layer)];
  if (there.bits == nullptr || there.device != device) there = {device, cuda_upload(by_branch_.words_of(layer))};
  sets.bits = there.bits.get();
  return sets;
}

// The planes of a KV head's query heads lie one after the other.
void Mask::hide_in_copy(ggml_tensor& node, const ColumnSets& sets) {
  const std::int64_t group = node.ne[2] / sets.heads;
  scratch_.resize(to_size(group * node.ne[1] * node.ne[0]));
  const std::size_t bytes = scratch_.size() * sizeof(float);
  for (std::int64_t head = 0; head < sets.heads; ++head) {
    const ColumnSets own = sets.head_range(head, 1);
    if (std::ranges::all_of(std::span(own.bits, own.head_words()), [](std::uint32_t word) { return word == 0; }))
      continue;
    ggml_backend_tensor_get(&node, scratch_.data(), to_size(head) * bytes, bytes);
    ops_for(Device::cpu).hide_entries({scratch_.data(), group, node.ne[1], node.ne[0]}, own, row_sets_);
    ggml_backend_tensor_set(&node, scratch_.data(), to_size(head) * bytes, bytes);
  }
}

}  // namespace depthkv
