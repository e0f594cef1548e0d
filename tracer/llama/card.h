// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <vector>

#include "depthkv/trace.h"
#include "tracer/llama/engine.h"

namespace depthkv {

// Throws InputError unless the file exists and starts as a GGUF does.
void check_gguf(const std::filesystem::path& file);
// Throws InputError for models whose cache isn't one full-attention cache of keys and values.
void check_supported(const llama_model* model, const std::filesystem::path& file);

// Hash of the file's size and of evenly spaced blocks of it: 16 hexadecimal digits.
std::string fingerprint(const std::filesystem::path& file);

struct ModelFacts {
  ModelCard card;
  std::vector<const ggml_tensor*> output_projections;  // per layer; null where the graph shows none
  // Whether the engine rotates by other factors once the cache has more cells than a short context (Phi-3's long and
  // short factors). The card has those of the shortest.
  bool rotation_depends_on_cells = false;
};
// Evaluates one token and reads geometry, rotation, scale and soft-capping off the graph; the rest is metadata.
ModelFacts examine(llama_model* model, const std::filesystem::path& file, int threads, bool offload);
// The card with the rotation that a cache of `cells` cells makes the engine use.
ModelCard rotated_at(llama_model* model, ModelCard card, std::int64_t cells, int threads, bool offload);

}  // namespace depthkv
