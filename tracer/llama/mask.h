// SPDX-License-Identifier: Apache-2.0
// Hides entries: their logits become -inf before the softmax, for the rows that don't see them only.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "depthkv/model.h"
#include "tracer/llama/engine.h"
#include "tracer/llama/hidden_sets.h"

namespace depthkv {

class Mask : public Watcher {
 public:
  // What each branch doesn't see of a prefix of `tokens`. Throws Error on a mask that does not fit the model or prunes
  // positions >= tokens.
  Mask(const ModelCard& card, std::span<const KeepMask> masks, std::int64_t tokens);

  // The rows of the next decode: their branches, or what each of them doesn't see. Position p of what is hidden must be
  // in cache cell p.
  void expect(std::vector<std::uint32_t> row_branches);
  void expect(HiddenSets rows);

  bool wants(const ggml_tensor& node) override;
  void take(ggml_tensor& node) override;

 private:
  const HiddenSets& hidden() const { return by_row_ ? *by_row_ : by_branch_; }
  ColumnSets hidden_on(int device, int layer);
  void hide_in_copy(ggml_tensor& node, const ColumnSets& sets);

  const ModelCard& card_;
  HiddenSets by_branch_;
  std::optional<HiddenSets> by_row_;     // where the next decode's are its own
  std::vector<std::uint32_t> row_sets_;  // of either
  struct OnDevice {
    int device = 0;
    std::shared_ptr<const std::uint32_t> bits;
  };
  std::vector<OnDevice> on_device_;  // [layer], by branch, where an engine has asked for it
  std::vector<float> scratch_;
};

}  // namespace depthkv
