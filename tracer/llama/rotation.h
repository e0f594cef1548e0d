// SPDX-License-Identifier: Apache-2.0
// How the engine rotates queries and keys, by its own operation: measured for the model card, undone for queries.
#pragma once
#include <ggml-backend.h>
#include <ggml.h>

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "depthkv/trace.h"
#include "tracer/llama/engine.h"

namespace depthkv {

// Computes the engine's rotation of other vectors than those of a graph.
class RotaryOperation {
 public:
  explicit RotaryOperation(int threads);

  // `vectors` [rows, heads, d], at one position per row, as the node `rope` rotates its own; `back`: turned the other
  // way, and grown the same way. The result is valid until the next call.
  std::span<float> apply(const ggml_tensor& rope, std::span<const float> vectors, std::int64_t d,
                         std::span<const std::int32_t> positions, bool back);

 private:
  BackendHandle backend_;
  std::vector<std::byte> memory_;  // of the engine's context, reused
  std::vector<float> result_;
};

// Turns recorded queries back to position 0.
class Unrotation {
 public:
  explicit Unrotation(int threads) : operation_(threads) {}

  // `node`: rotated queries [d, heads, rows] as attention reads them, through views and scales; `queries` their
  // values, [rows, heads, d]. The result is valid until the next call. Throws Error if no rotation lies below the node.
  std::span<const float> undo(const ggml_tensor& node, std::span<const float> queries);

 private:
  RotaryOperation operation_;
};

// Looks at how each layer rotates the keys that it stores. One decode is enough.
class RotationProbe : public Watcher {
 public:
  explicit RotationProbe(int threads) : operation_(threads) {}
  bool wants(const ggml_tensor& node) override;
  void take(ggml_tensor& node) override;

  // Of ModelCard: "none" where no layer rotates.
  std::string layout() const;
  // One per layer; empty where the layout is "none" or "other".
  std::vector<LayerRotation> rotations() const;
  // Whether the engine rotates by factors for short contexts, and has others for long ones.
  bool depends_on_context() const { return depends_on_context_; }

 private:
  struct Seen {
    std::string layout;
    LayerRotation rotation;
  };
  Seen measure(const ggml_tensor& rope, std::int64_t d);

  RotaryOperation operation_;
  std::map<int, Seen> layers_;
  bool depends_on_context_ = false;
};

}  // namespace depthkv
