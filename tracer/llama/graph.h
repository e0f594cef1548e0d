// SPDX-License-Identifier: Apache-2.0
// Finds the nodes of attention in the engine's graph by structure: what an operation reads, not what it is called.
#pragma once
#include <ggml-backend.h>
#include <ggml.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace depthkv {

// The layer whose cached keys (or values) a view shows, if it shows any.
std::optional<int> key_cache_layer(const ggml_tensor* view);
std::optional<int> value_cache_layer(const ggml_tensor* view);

// The product of cached keys and queries, [keys, rows, query heads]: logits before scaling.
bool is_key_query_product(const ggml_tensor& node);
// Attention in one operation, without logits or softmax: the engine's flash attention.
bool is_flash_attention(const ggml_tensor& node);

// What attention reads, whichever of the two it starts with.
struct AttentionInputs {
  int layer = 0;
  const ggml_tensor* keys = nullptr;     // the tensor of the cache, [KV heads * d, cells]
  const ggml_tensor* queries = nullptr;  // [d, rows, query heads]
};
std::optional<AttentionInputs> attention_inputs(const ggml_tensor& node);
// The product under a chain of soft-capping (scale, tanh, scale), or null.
const ggml_tensor* product_under(const ggml_tensor* node);
// The last node of soft-capping: what the softmax reads where the architecture caps its logits.
bool is_softcap_end(const ggml_tensor& node);
bool is_attention_softmax(const ggml_tensor& node);
int layer_of(const ggml_tensor& product);

// The layer whose output projection a product applies, by the name of its weights ("blk.<i>.attn_output.weight"), if
// any.
std::optional<int> output_projection_layer(const ggml_tensor& node);

// The weights of a layer ("blk.<i>.<what>") that a product applies, or nothing.
struct LayerWeights {
  int layer = 0;
  std::string_view what;  // "attn_q.weight"
};
std::optional<LayerWeights> applied_weights(const ggml_tensor& node);
// The layer whose queries a product projects, alone or with keys and values, or nothing.
std::optional<int> query_projection_layer(const ggml_tensor& node);

// What lies under a norm and the weights and biases that follow on it; the node itself where it isn't the end of a
// norm.
const ggml_tensor* under_norm(const ggml_tensor* node);
// By its name, as in the file. Other tensors without inputs may be copies of nodes that another device computed.
bool is_weight(const ggml_tensor* tensor);

// What the softmax's parameters and the nodes before it say.
struct SoftmaxFacts {
  double scale = 1;
  double softcap = 0;
  bool position_bias = false;  // ALiBi
  bool sinks = false;          // learned logits that take part in the softmax
};
SoftmaxFacts softmax_facts(const ggml_tensor& softmax);

// A node's bytes: its own memory if that is host memory, else copied to `scratch`.
std::span<const std::byte> host_bytes(const ggml_tensor& node, std::vector<std::byte>& scratch);
// Rows of a tensor's values as floats, whatever its type, from the tensor's bytes.
void dequantise_rows(const ggml_tensor& tensor, std::span<const std::byte> bytes, std::int64_t first,
                     std::int64_t count, std::span<float> out);
bool in_host_memory(const ggml_tensor& node);

}  // namespace depthkv
