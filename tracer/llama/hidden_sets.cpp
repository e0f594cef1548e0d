// SPDX-License-Identifier: Apache-2.0
#include "tracer/llama/hidden_sets.h"

#include <fmt/format.h>

#include "depthkv/error.h"
#include "tracer/index.h"

namespace depthkv {
HiddenSets::HiddenSets(const ModelCard& card, std::size_t sets, std::int64_t positions)
    : sets_(sets), words_(to_size((positions + 31) / 32)), bits_(card.layers.size()) {
  for (const LayerShape& layer : card.layers) kv_heads_.push_back(layer.kv_heads);
}

void HiddenSets::add(std::size_t set, const EntrySets& entries, std::int64_t below) {
  if (entries.size() != bits_.size())
    throw Error(fmt::format("a mask has {} layers, the model {}", entries.size(), bits_.size()));
  for (std::size_t layer = 0; layer < bits_.size(); ++layer) {
    const std::size_t heads = to_size(kv_heads_[layer]);
    if (entries[layer].size() != heads)
      throw Error(fmt::format("a mask has {} KV heads in layer {}, the model {}", entries[layer].size(), layer, heads));
    for (std::size_t head = 0; head < heads; ++head) {
      if (entries[layer][head].empty()) continue;
      bits_[layer].resize(heads * sets_ * words_);
      add(std::span(bits_[layer]).subspan((head * sets_ + set) * words_, words_), entries[layer][head], below);
    }
  }
}

void HiddenSets::add(std::span<std::uint32_t> words, std::span<const std::uint32_t> positions,
                     std::int64_t below) const {
  std::int64_t next = 0;
  for (const std::uint32_t position : positions) {
    if (position >= below)
      throw Error(fmt::format("a mask hides position {}, expected one before position {}", position, below));
    if (position < next) throw Error(fmt::format("a mask's positions are not ascending at {}", position));
    next = std::int64_t{position} + 1;
    words[position / 32] |= 1U << position % 32;
  }
}

bool HiddenSets::touches(int layer) const {
  return layer >= 0 && to_size(layer) < bits_.size() && !bits_[to_size(layer)].empty();
}

ColumnSets HiddenSets::of(int layer) const {
  return {words_of(layer).data(), kv_heads_[to_size(layer)], static_cast<std::int64_t>(sets_),
          static_cast<std::int64_t>(words_)};
}

}  // namespace depthkv
