// SPDX-License-Identifier: Apache-2.0
#include "tracer/llama/graph.h"

#include <fmt/format.h>

#include <charconv>
#include <cstring>
#include <string_view>

#include "depthkv/error.h"

namespace depthkv {
namespace {

// "cache_k_l12" -> 12. Caches and weights are what is told by name: they have no inputs.
std::optional<int> layer_in_name(std::string_view name, std::string_view prefix, std::string_view suffix) {
  if (!name.starts_with(prefix) || !name.ends_with(suffix)) return std::nullopt;
  const std::string_view digits = name.substr(prefix.size(), name.size() - prefix.size() - suffix.size());
  int layer = 0;
  const auto [end, status] = std::from_chars(digits.data(), digits.data() + digits.size(), layer);
  if (status != std::errc{} || end != digits.data() + digits.size()) return std::nullopt;
  return layer;
}

constexpr std::string_view kLayer = "blk.";

std::optional<int> cache_layer(const ggml_tensor* view, std::string_view prefix) {
  if (view == nullptr || view->view_src == nullptr) return std::nullopt;
  return layer_in_name(view->view_src->name, prefix, "");
}

float float_param(const ggml_tensor& node, std::size_t index) {
  float value = 0;
  std::memcpy(&value, node.op_params + index, sizeof value);
  return value;
}

ggml_backend_buffer_t buffer_of(const ggml_tensor& node) {
  return node.view_src != nullptr ? node.view_src->buffer : node.buffer;
}

}  // namespace

std::optional<int> key_cache_layer(const ggml_tensor* view) { return cache_layer(view, "cache_k_l"); }
std::optional<int> value_cache_layer(const ggml_tensor* view) { return cache_layer(view, "cache_v_l"); }

bool is_key_query_product(const ggml_tensor& node) {
  return node.op == GGML_OP_MUL_MAT && key_cache_layer(node.src[0]).has_value();
}

bool is_flash_attention(const ggml_tensor& node) {
  return node.op == GGML_OP_FLASH_ATTN_EXT && key_cache_layer(node.src[1]).has_value();
}

std::optional<AttentionInputs> attention_inputs(const ggml_tensor& node) {
  const bool flash = is_flash_attention(node);
  if (!flash && !is_key_query_product(node)) return std::nullopt;
  const ggml_tensor* keys = node.src[flash ? 1 : 0];
  return AttentionInputs{*key_cache_layer(keys), keys->view_src, node.src[flash ? 0 : 1]};
}

const ggml_tensor* product_under(const ggml_tensor* node) {
  for (int steps = 0; node != nullptr && steps < 4; ++steps) {
    if (is_key_query_product(*node)) return node;
    const bool tanh = node->op == GGML_OP_UNARY && ggml_get_unary_op(node) == GGML_UNARY_OP_TANH;
    if (node->op != GGML_OP_SCALE && !tanh) return nullptr;
    node = node->src[0];
  }
  return nullptr;
}

bool is_softcap_end(const ggml_tensor& node) {
  return node.op == GGML_OP_SCALE && node.src[0]->op == GGML_OP_UNARY && product_under(&node) != nullptr;
}

bool is_attention_softmax(const ggml_tensor& node) {
  return node.op == GGML_OP_SOFT_MAX && product_under(node.src[0]) != nullptr;
}

int layer_of(const ggml_tensor& product) { return *key_cache_layer(product.src[0]); }

std::optional<int> output_projection_layer(const ggml_tensor& node) {
  if (node.op != GGML_OP_MUL_MAT) return std::nullopt;
  return layer_in_name(node.src[0]->name, "blk.", ".attn_output.weight");
}

std::optional<LayerWeights> applied_weights(const ggml_tensor& node) {
  if (node.op != GGML_OP_MUL_MAT && node.op != GGML_OP_MUL_MAT_ID) return std::nullopt;
  const std::string_view name = node.src[0]->name;
  const std::size_t dot = name.find('.', kLayer.size());
  if (!is_weight(node.src[0]) || dot == std::string_view::npos) return std::nullopt;
  const auto layer = layer_in_name(name.substr(0, dot), kLayer, "");
  if (!layer) return std::nullopt;
  return LayerWeights{*layer, name.substr(dot + 1)};
}

std::optional<int> query_projection_layer(const ggml_tensor& node) {
  const auto weights = applied_weights(node);
  if (!weights || (weights->what != "attn_q.weight" && weights->what != "attn_qkv.weight")) return std::nullopt;
  return weights->layer;
}

bool is_weight(const ggml_tensor* tensor) {
  if (tensor == nullptr || tensor->op != GGML_OP_NONE) return false;
  const std::string_view name = tensor->name;
  return name.ends_with(".weight") || name.ends_with(".bias") || name.ends_with(".scale");
}

const ggml_tensor* under_norm(const ggml_tensor* node) {
  const ggml_tensor* at = node;
  while ((at->op == GGML_OP_MUL || at->op == GGML_OP_ADD) && is_weight(at->src[1])) at = at->src[0];
  return at->op == GGML_OP_RMS_NORM || at->op == GGML_OP_NORM ? at->src[0] : node;
}

SoftmaxFacts softmax_facts(const ggml_tensor& softmax) {
  SoftmaxFacts facts;
  facts.scale = float_param(softmax, 0);
  facts.position_bias = float_param(softmax, 1) != 0;
  facts.sinks = softmax.src[2] != nullptr;
  if (is_softcap_end(*softmax.src[0])) facts.softcap = float_param(*softmax.src[0], 0);
  return facts;
}

bool in_host_memory(const ggml_tensor& node) {
  const ggml_backend_buffer_t buffer = buffer_of(node);
  return buffer != nullptr && ggml_backend_buffer_is_host(buffer);
}

std::span<const std::byte> host_bytes(const ggml_tensor& node, std::vector<std::byte>& scratch) {
  const std::size_t bytes = ggml_nbytes(&node);
  if (in_host_memory(node)) return {static_cast<const std::byte*>(node.data), bytes};
  scratch.resize(bytes);
  ggml_backend_tensor_get(&node, scratch.data(), 0, bytes);
  return scratch;
}

void dequantise_rows(const ggml_tensor& tensor, std::span<const std::byte> bytes, std::int64_t first,
                     std::int64_t count, std::span<float> out) {
  const std::span<const std::byte> rows =
      bytes.subspan(static_cast<std::size_t>(first) * tensor.nb[1], static_cast<std::size_t>(count) * tensor.nb[1]);
  if (tensor.type == GGML_TYPE_F32 && ggml_is_contiguous(&tensor)) {
    std::memcpy(out.data(), rows.data(), rows.size());
    return;
  }
  const ggml_to_float_t to_float = ggml_get_type_traits(tensor.type)->to_float;
  if (to_float == nullptr || !ggml_is_contiguous(&tensor))
    throw Error(fmt::format("{} holds {}, which can't be read as numbers", tensor.name, ggml_type_name(tensor.type)));
  to_float(rows.data(), out.data(), count * tensor.ne[0]);
}

}  // namespace depthkv
