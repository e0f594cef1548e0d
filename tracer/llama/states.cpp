// SPDX-License-Identifier: Apache-2.0
#include "tracer/llama/states.h"

#include <fmt/format.h>

#include "depthkv/error.h"
#include "tracer/llama/graph.h"

namespace depthkv {
namespace {

bool reads(const ggml_tensor& node, const ggml_tensor* source) {
  return source != nullptr && (node.src[0] == source || node.src[1] == source);
}

// Itself, or its rows that have an output: the engine picks those, here all, in the last layer.
bool shows(const ggml_tensor* node, const ggml_tensor* source) {
  return node == source || (node->op == GGML_OP_GET_ROWS && node->src[0] == source);
}

bool is_output_norm(const ggml_tensor& node) {
  return node.op == GGML_OP_MUL && is_weight(node.src[1]) &&
         std::string_view(node.src[1]->name) == "output_norm.weight";
}

std::string describe(const ggml_tensor* node) {
  return node == nullptr ? "nothing" : fmt::format("{} ({})", node->name, ggml_op_name(node->op));
}

}  // namespace

States::States(const ModelCard& card, const StateSink& sink, EngineWorkers& workers)
    : card_(card), sink_(sink), workers_(workers) {}

void States::expect(std::int64_t first, std::int64_t rows) {
  first_ = first;
  rows_ = rows;
  layer_ = -1;
  queries_ = input_ = residual_ = attention_.node = output_.node = nullptr;
  complete_ = false;
}

bool States::wants(const ggml_tensor& node) {
  if (const auto layer = query_projection_layer(node); layer && *layer > layer_) {
    start_layer(node, *layer);
    return true;
  }
  const auto weights = applied_weights(node);
  if (weights && weights->layer == layer_) {
    if (weights->what == "attn_output.weight" && attention_.node == nullptr) {
      attention_.node = &node;
      return true;
    }
    if (weights->what.starts_with("ffn_") && !feeds_forward_) {
      feeds_forward_ = true;
      if (residual_ == nullptr || under_norm(node.src[1]) != residual_)
        refuse("the FFN", under_norm(node.src[1]), "the sum of the layer's input and the attention's output");
    }
    return false;
  }
  if (residual_ == nullptr && continues(node, attention_, true)) {
    attention_.node = &node;
    return true;
  }
  if (residual_ == nullptr && adds(node, attention_.node) &&
      (shows(node.src[0], input_) || shows(node.src[1], input_))) {
    residual_ = &node;
    return true;
  }
  if ((output_.node == nullptr && adds(node, residual_)) || continues(node, output_, false)) {
    output_.node = &node;
    return true;
  }
  return is_output_norm(node);
}

// The layer's input is what the layer before it left.
void States::start_layer(const ggml_tensor& product, int layer) {
  const ggml_tensor* input = under_norm(product.src[1]);
  if (layer != layer_ + 1) refuse(fmt::format("layer {}", layer), input, "the layer after it to come next");
  if (layer > 0) confirm(input, fmt::format("layer {}", layer));
  layer_ = layer;
  queries_ = &product;
  input_ = input;
  residual_ = attention_.node = output_.node = nullptr;
  feeds_forward_ = false;
}

// Takes what the stream's last part has become to be final, and hands it over.
void States::confirm(const ggml_tensor* read, std::string_view reader) {
  if (output_.node == nullptr || read != output_.node)
    refuse(reader, read, "the sum of what the FFN reads and its output");
  deliver(Stage::mlp, layer_, output_.rows);
}

// Whether a node goes on with a part: a bias, a norm, a factor, or the choice of the rows that have an output.
bool States::continues(const ggml_tensor& node, const Part& part, bool norms) const {
  if (part.node == nullptr || node.src[0] != part.node) return false;
  switch (node.op) {
    case GGML_OP_ADD:
    case GGML_OP_MUL:
      return is_weight(node.src[1]);
    case GGML_OP_SCALE:
    case GGML_OP_GET_ROWS:
      return true;
    default:
      return norms && (node.op == GGML_OP_RMS_NORM || node.op == GGML_OP_NORM);
  }
}

bool States::adds(const ggml_tensor& node, const ggml_tensor* one) const {
  return node.op == GGML_OP_ADD && reads(node, one) && !is_weight(node.src[1]);
}

void States::take(ggml_tensor& node) {
  const UseWorkers use(workers_);
  const auto keep = [&](Part& part) {
    const std::span<const float> rows = rows_of(node);
    part.rows.assign(rows.begin(), rows.end());
  };
  if (&node == queries_) {
    if (layer_ == 0) deliver(Stage::mlp, -1, rows_of(*input_));
    deliver(Stage::pre, layer_, rows_of(*node.src[1]));
  } else if (&node == attention_.node) {
    keep(attention_);
  } else if (&node == residual_) {
    deliver(Stage::att, layer_, attention_.rows);
    deliver(Stage::res, layer_, rows_of(node));
  } else if (&node == output_.node) {
    keep(output_);
  } else {
    confirm(under_norm(&node), "the output norm");
    complete_ = true;
  }
}

std::span<const float> States::rows_of(const ggml_tensor& node) {
  if (node.type != GGML_TYPE_F32 || node.ne[0] != card_.embedding || ggml_nrows(&node) != rows_ ||
      !ggml_is_contiguous(&node))
    throw Error(fmt::format("{} is {} [{}, {}, {}, {}], expected {} adjacent rows of {} f32", node.name,
                            ggml_type_name(node.type), node.ne[0], node.ne[1], node.ne[2], node.ne[3], rows_,
                            card_.embedding));
  const std::span<const std::byte> bytes = host_bytes(node, scratch_);
  return {reinterpret_cast<const float*>(bytes.data()), bytes.size() / sizeof(float)};
}

void States::deliver(Stage stage, int layer, std::span<const float> rows) const {
  sink_({stage, layer, first_, rows_, rows});
}

void States::check_complete() const {
  if (complete_ && layer_ + 1 == static_cast<int>(card_.layers.size())) return;
  refuse("nothing", output_.node, fmt::format("an output norm behind layer {}", card_.layers.size() - 1));
}

void States::refuse(std::string_view reader, const ggml_tensor* read, std::string_view expected) const {
  throw InputError(
      fmt::format("{} (architecture {}): behind layer {}, {} reads {}, expected {}; its hidden states can't be told, "
                  "so record without hidden_mean, hidden_unit_mean, hidden_scalars and attention_cosines",
                  card_.name, card_.architecture, layer_, reader, describe(read), expected));
}

}  // namespace depthkv
