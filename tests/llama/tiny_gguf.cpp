// SPDX-License-Identifier: Apache-2.0
#include "llama/tiny_gguf.h"

#include <ggml.h>
#include <gguf.h>

#include <cmath>
#include <ostream>
#include <random>
#include <stdexcept>
#include <vector>

namespace depthkv {
namespace {

class Writer {
 public:
  explicit Writer(const TinyGguf& model)
      : model_(model),
        random_(model.seed),
        gguf_(gguf_init_empty()),
        ggml_(ggml_init({std::size_t{64} << 20, nullptr, false})) {}
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;
  ~Writer() {
    gguf_free(gguf_);
    ggml_free(ggml_);
  }

  void write(const std::filesystem::path& file) {
    metadata();
    const int queries = model_.query_heads * model_.head_dim;
    const int cached = model_.kv_heads * model_.head_dim;
    // Gemma multiplies embeddings by the root of their size, and reads its logits off the same matrix.
    matrix("token_embd.weight", model_.embedding, model_.vocabulary,
           model_.gemma() ? 1 / root(model_.embedding) : 1.0F);
    norm("output_norm");
    if (!model_.gemma() && !model_.parallel())
      matrix("output.weight", model_.embedding, model_.vocabulary, 2.0F / root(model_.embedding));
    if (model_.factors && model_.architecture == "phi3") {
      factors("rope_factors_short");
      factors("rope_factors_long");
    } else if (model_.factors) {
      factors("rope_freqs");
    }
    for (int i = 0; i < model_.layers; ++i) layer("blk." + std::to_string(i) + ".", queries, cached);
    if (!gguf_write_to_file(gguf_, file.c_str(), false)) throw std::runtime_error("cannot write " + file.string());
  }

 private:
  static float root(int value) { return std::sqrt(static_cast<float>(value)); }

  void metadata() {
    const std::string& arch = model_.architecture;
    const auto number = [&](const std::string& key, int value) {
      gguf_set_val_u32(gguf_, (arch + "." + key).c_str(), static_cast<std::uint32_t>(value));
    };
    gguf_set_val_str(gguf_, "general.architecture", arch.c_str());
    gguf_set_val_str(gguf_, "general.name", ("tiny " + arch).c_str());
    gguf_set_val_str(gguf_, "tokenizer.ggml.model", "no_vocab");
    number("vocab_size", model_.vocabulary);
    number("context_length", model_.context);
    number("embedding_length", model_.embedding);
    number("block_count", model_.layers);
    number("feed_forward_length", 2 * model_.embedding);
    number("attention.head_count", model_.query_heads);
    number("attention.head_count_kv", model_.kv_heads);
    number("attention.key_length", model_.head_dim);
    number("attention.value_length", model_.head_dim);
    number("rope.dimension_count", model_.rotated > 0 ? model_.rotated : model_.head_dim);
    gguf_set_val_f32(gguf_, (arch + ".attention.layer_norm_rms_epsilon").c_str(), 1e-5F);
    gguf_set_val_f32(gguf_, (arch + ".rope.freq_base").c_str(), kTinyBase);
    if (model_.window(0) > 0) number("attention.sliding_window", kTinyWindow);
    if (arch == "gemma2") gguf_set_val_f32(gguf_, "gemma2.attn_logit_softcapping", 5.0F);
    if (model_.parallel() || model_.centred())
      gguf_set_val_f32(gguf_, (arch + ".attention.layer_norm_epsilon").c_str(), 1e-5F);
    if (model_.parallel()) gguf_set_val_f32(gguf_, (arch + ".logit_scale").c_str(), 1.0F);
    if (arch == "phi3" || !model_.scaling.empty())
      number("rope.scaling.original_context_length",
             model_.factors || !model_.scaling.empty() ? kTinyShort : model_.context);
    if (arch == "phi3" && model_.factors)
      gguf_set_val_f32(gguf_, "phi3.rope.scaling.attn_factor", kTinyAttentionFactor);
    if (!model_.scaling.empty()) {
      gguf_set_val_str(gguf_, (arch + ".rope.scaling.type").c_str(), model_.scaling.c_str());
      gguf_set_val_f32(gguf_, (arch + ".rope.scaling.factor").c_str(), kTinyScaling);
    }
    if (arch == "qwen2vl") {  // pairs by time, height and width
      const std::int32_t sections[] = {model_.head_dim / 2 - 6, 3, 3, 0};
      gguf_set_arr_data(gguf_, "qwen2vl.rope.dimension_sections", GGUF_TYPE_INT32, sections, 4);
    }
  }

  void layer(const std::string& name, int queries, int cached) {
    const float in = 1 / root(model_.embedding);
    norm(name + "attn_norm");
    if (model_.architecture == "phi3") {
      matrix(name + "attn_qkv.weight", model_.embedding, queries + 2 * cached, 1.5F * in);
    } else {
      matrix(name + "attn_q.weight", model_.embedding, queries, 1.5F * in);  // wide enough for peaked attention
      matrix(name + "attn_k.weight", model_.embedding, cached, 1.5F * in);
      matrix(name + "attn_v.weight", model_.embedding, cached, in);
    }
    if (model_.head_norms()) {
      vector(name + "attn_q_norm.weight", model_.head_dim, 1.5F, 0.3F);
      vector(name + "attn_k_norm.weight", model_.head_dim, 1.5F, 0.3F);
    }
    if (model_.architecture.starts_with("qwen2")) {
      vector(name + "attn_q.bias", queries, 0, 0.5F);
      vector(name + "attn_k.bias", cached, 0, 0.5F);
      vector(name + "attn_v.bias", cached, 0, 0.5F);
    }
    matrix(name + "attn_output.weight", queries, model_.embedding, 1 / root(queries));
    if (!model_.parallel()) norm(name + "ffn_norm");
    if (model_.architecture == "gemma2" || model_.architecture == "gemma3") {
      norm(name + "post_attention_norm");
      norm(name + "post_ffw_norm");
    }
    const bool fused = model_.architecture == "phi3";  // gate and up in one matrix
    if (!fused) matrix(name + "ffn_gate.weight", model_.embedding, 2 * model_.embedding, in);
    matrix(name + "ffn_up.weight", model_.embedding, (fused ? 4 : 2) * model_.embedding, in);
    matrix(name + "ffn_down.weight", 2 * model_.embedding, model_.embedding, in);
  }

  void factors(const std::string& name) {
    const int pairs = model_.head_dim / 2;
    ggml_tensor* tensor = ggml_new_tensor_1d(ggml_, GGML_TYPE_F32, pairs);
    for (int c = 0; c < pairs; ++c) static_cast<float*>(tensor->data)[c] = tiny_factor(name, c);
    add(name + ".weight", tensor);
  }
  void norm(const std::string& name) {
    vector(name + ".weight", model_.embedding, 1, 0.1F);
    if (model_.centred()) vector(name + ".bias", model_.embedding, 0, 0.1F);
  }
  void vector(const std::string& name, int size, float mean, float spread) {
    fill(name, ggml_new_tensor_1d(ggml_, GGML_TYPE_F32, size), mean, spread);
  }
  void matrix(const std::string& name, int in, int out, float spread) {
    fill(name, ggml_new_tensor_2d(ggml_, GGML_TYPE_F32, in, out), 0, spread);
  }
  void fill(const std::string& name, ggml_tensor* tensor, float mean, float spread) {
    std::normal_distribution<float> draw(mean, spread);
    auto* values = static_cast<float*>(tensor->data);
    for (std::int64_t i = 0; i < ggml_nelements(tensor); ++i) values[i] = draw(random_);
    add(name, tensor);
  }
  void add(const std::string& name, ggml_tensor* tensor) {
    ggml_set_name(tensor, name.c_str());
    gguf_add_tensor(gguf_, tensor);
  }

  const TinyGguf& model_;
  std::mt19937 random_;
  gguf_context* gguf_;
  ggml_context* ggml_;
};

}  // namespace

std::ostream& operator<<(std::ostream& out, const TinyGguf& model) { return out << model.architecture; }

TinyGguf tiny_llama() { return {}; }
TinyGguf tiny_qwen2() {
  return {.architecture = "qwen2",
          .layers = 2,
          .query_heads = 6,
          .kv_heads = 2,
          .head_dim = 16,
          .embedding = 96,
          .seed = 2};
}
TinyGguf tiny_gemma() {
  return {.architecture = "gemma", .query_heads = 2, .kv_heads = 1, .head_dim = 64, .embedding = 64, .seed = 3};
}
TinyGguf tiny_qwen3() { return {.architecture = "qwen3", .layers = 2, .seed = 5}; }
TinyGguf tiny_gemma2() { return {.architecture = "gemma2", .layers = 4, .seed = 4}; }
TinyGguf tiny_gemma3() { return {.architecture = "gemma3", .layers = 7, .seed = 6}; }
TinyGguf tiny_mistral3() { return {.architecture = "mistral3", .layers = 2, .seed = 9}; }
TinyGguf tiny_phi3() { return {.architecture = "phi3", .layers = 2, .kv_heads = 4, .seed = 7}; }

TinyGguf tiny_command_r() { return {.architecture = "command-r", .layers = 2, .seed = 8}; }

int TinyGguf::window(int layer) const {
  if (architecture == "gemma2") return layer % 2 == 0 ? kTinyWindow : 0;
  if (architecture == "gemma3") return layer % 6 == 5 ? 0 : kTinyWindow;
  return 0;
}

float tiny_factor(const std::string& set, int c) {
  if (set == "rope_freqs") return c < 3 ? 1.0F : 2.0F + static_cast<float>(c);
  return set == "rope_factors_short" ? 1.0F + 0.05F * static_cast<float>(c) : 1.5F + 2.0F * static_cast<float>(c);
}

void write_tiny_gguf(const TinyGguf& model, const std::filesystem::path& file) { Writer(model).write(file); }

std::vector<float> read_tensor(const std::filesystem::path& file, const std::string& name) {
  ggml_context* data = nullptr;
  gguf_context* gguf = gguf_init_from_file(file.c_str(), {false, &data});
  if (gguf == nullptr) throw std::runtime_error("cannot read " + file.string());
  std::vector<float> values;
  if (const ggml_tensor* tensor = ggml_get_tensor(data, name.c_str())) {
    const auto* first = static_cast<const float*>(tensor->data);
    values.assign(first, first + ggml_nelements(tensor));
  }
  gguf_free(gguf);
  ggml_free(data);
  return values;
}

}  // namespace depthkv
