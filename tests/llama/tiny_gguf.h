// SPDX-License-Identifier: Apache-2.0
// Writes small random-weight models in the engine's file format, so that every architecture can be tested anywhere.
#pragma once
#include <cstdint>
#include <filesystem>
#include <iosfwd>
#include <string>
#include <vector>

#include "depthkv/model.h"

namespace depthkv {

struct TinyGguf {
  std::string architecture = "llama";  // llama, qwen2, gemma or gemma2
  int layers = 3;
  int query_heads = 4;
  int kv_heads = 2;
  int head_dim = 16;
  int embedding = 64;
  int context = 512;
  int vocabulary = 96;
  std::uint32_t seed = 1;
};
std::ostream& operator<<(std::ostream& out, const TinyGguf& model);  // how test names show it
TinyGguf tiny_llama();
TinyGguf tiny_qwen2();   // with biases on queries, keys and values
TinyGguf tiny_gemma();   // one KV head, heads wider than embedding / heads
TinyGguf tiny_gemma2();  // sliding windows

void write_tiny_gguf(const TinyGguf& model, const std::filesystem::path& file);

// The values of one tensor of such a file, empty if it has none of that name.
std::vector<float> read_tensor(const std::filesystem::path& file, const std::string& name);

}  // namespace depthkv
