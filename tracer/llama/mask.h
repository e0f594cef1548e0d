// SPDX-License-Identifier: Apache-2.0
// Hides pruned entries: their logits become -inf before the softmax, for the rows of their branch only.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "depthkv/model.h"
#include "tracer/llama/engine.h"

namespace depthkv {

class Mask : public Watcher {
 public:
  // Throws Error on a mask that does not fit the model or prunes positions >= tokens.
  Mask(const ModelCard& card, std::span<const KeepMask> masks, std::int64_t tokens);

  // The branch of every row of the next decode. Position p of the prefix must be in cache cell p.
  void expect(std::vector<std::size_t> row_branches) { row_branches_ = std::move(row_branches); }

  bool wants(const ggml_tensor& node) override;
  void take(ggml_tensor& node) override;

 private:
  struct Run {
    std::int64_t begin = 0;
    std::int64_t end = 0;
  };
  using Runs = std::vector<Run>;

  static Runs runs_of(std::span<const std::uint32_t> pruned, std::int64_t tokens);
  bool touches(int layer) const;
  // logits: [rows, width] of one query head.
  void hide(const std::vector<Runs>& branches, std::span<float> logits, std::int64_t width) const;

  const ModelCard& card_;
  std::vector<std::vector<std::vector<Runs>>> runs_;  // [layer][KV head][branch]; a head that nobody prunes has none
  std::vector<std::size_t> row_branches_;
  std::vector<float> scratch_;
};

}  // namespace depthkv
