// SPDX-License-Identifier: Apache-2.0
// Undoes the rotary embedding of queries, by the engine's own operation.
#pragma once
#include <ggml-backend.h>
#include <ggml.h>

#include <span>
#include <vector>

#include "tracer/llama/engine.h"

namespace depthkv {

class Unrotation {
 public:
  explicit Unrotation(int threads);

  // `node`: rotated queries [d, heads, rows] as the product reads them, through views and scales; `queries` their
  // values, [rows, heads, d]. The result is valid until the next call. Throws Error if no rotation lies below the node
  // or it is of a kind with several positions per token.
  std::span<const float> undo(const ggml_tensor& node, std::span<const float> queries);

 private:
  BackendHandle backend_;
  std::vector<std::byte> memory_;  // of the engine's context, reused
  std::vector<float> result_;
};

}  // namespace depthkv
