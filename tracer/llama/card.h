// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>

#include "depthkv/trace.h"
#include "tracer/llama/engine.h"

namespace depthkv {

// Throws InputError unless the file exists and starts as a GGUF does.
void check_gguf(const std::filesystem::path& file);
// Throws InputError for models whose cache isn't one full-attention cache of keys and values.
void check_supported(const llama_model* model, const std::filesystem::path& file);

// Hash of the file's size and of evenly spaced blocks of it: 16 hexadecimal digits.
std::string fingerprint(const std::filesystem::path& file);

// Evaluates one token and reads geometry, scale and soft-capping off the graph; the rest is metadata. Also finds each
// layer's output projection (null where the graph shows none).
ModelCard make_card(llama_model* model, const std::filesystem::path& file, int threads, bool offload,
                    std::vector<const ggml_tensor*>& output_projections);

}  // namespace depthkv
