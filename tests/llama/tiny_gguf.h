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
  // llama, qwen2, qwen2vl, qwen3, gemma, gemma2, gemma3, mistral3, phi3, command-r, stablelm, smollm3 or hunyuan-dense
  std::string architecture = "llama";
  int layers = 3;
  int query_heads = 4;
  int kv_heads = 2;
  int head_dim = 16;
  int embedding = 64;
  int context = 512;
  int vocabulary = 96;
  std::uint32_t seed = 1;
  int rotated = 0;           // dimensions of a head that the rotation turns; 0: all
  std::string scaling = {};  // of positions, by kTinyScaling: "linear" or "yarn"; empty: none
  bool factors = false;  // of the frequencies: Llama has one set, Phi-3 one for contexts up to kTinyShort and one more

  bool gemma() const { return architecture.starts_with("gemma"); }
  bool parallel() const { return architecture == "command-r"; }
  bool centred() const { return architecture == "stablelm"; }  // its norms subtract the mean, and have biases
  bool head_norms() const {
    return architecture == "qwen3" || architecture == "gemma3" || architecture == "hunyuan-dense";
  }
  // Positions that a query of the layer sees, 0: all.
  int window(int layer) const;
};
std::ostream& operator<<(std::ostream& out, const TinyGguf& model);  // how test names show it
TinyGguf tiny_llama();
TinyGguf tiny_qwen2();      // with biases on queries, keys and values
TinyGguf tiny_gemma();      // one KV head, heads wider than embedding / heads
TinyGguf tiny_qwen3();      // queries and keys normalised per head
TinyGguf tiny_gemma2();     // every other layer has a sliding window, logits are capped
TinyGguf tiny_gemma3();     // five of six layers have a sliding window, queries and keys are normalised
TinyGguf tiny_mistral3();   // as Llama
TinyGguf tiny_phi3();       // queries, keys and values from one matrix
TinyGguf tiny_command_r();  // attention and FFN read the same norm and are added together
inline constexpr int kTinyWindow = 24;
inline constexpr float kTinyBase = 5000;
inline constexpr float kTinyScaling = 4;
inline constexpr int kTinyShort = 256;                // tokens of a short context, and of the one that was scaled
inline constexpr float kTinyAttentionFactor = 1.25F;  // of Phi-3 with factors

// Frequency factor c of a set, by its tensor's name: "rope_freqs", "rope_factors_short" or "rope_factors_long".
float tiny_factor(const std::string& set, int c);

void write_tiny_gguf(const TinyGguf& model, const std::filesystem::path& file);

// The values of one tensor of such a file, empty if it has none of that name.
std::vector<float> read_tensor(const std::filesystem::path& file, const std::string& name);

}  // namespace depthkv
