// SPDX-License-Identifier: Apache-2.0
// Sets of entries that tokens don't see, as hide_entries takes them.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "depthkv/model.h"
#include "depthkv/ops.h"

namespace depthkv {

class HiddenSets {
 public:
  // So many empty sets of positions < `positions`.
  HiddenSets(const ModelCard& card, std::size_t sets, std::int64_t positions);

  // Throws Error unless the entries fit the model, ascend and are all < `below`.
  void add(std::size_t set, const EntrySets& entries, std::int64_t below);

  std::size_t size() const { return sets_; }
  bool touches(int layer) const;
  // The layer's sets, and all of their words.
  ColumnSets of(int layer) const;
  std::span<const std::uint32_t> words_of(int layer) const { return bits_[static_cast<std::size_t>(layer)]; }

 private:
  void add(std::span<std::uint32_t> words, std::span<const std::uint32_t> positions, std::int64_t below) const;

  std::vector<std::int64_t> kv_heads_;  // [layer]
  std::size_t sets_;
  std::size_t words_;                             // of a set
  std::vector<std::vector<std::uint32_t>> bits_;  // [layer], [KV head][set][words]; none where nothing is hidden
};

}  // namespace depthkv
