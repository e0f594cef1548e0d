// SPDX-License-Identifier: Apache-2.0
#include "tracer/llama/capture.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "depthkv/error.h"
#include "kernels/cuda_backend.h"
#include "kernels/half.h"
#include "tracer/index.h"
#include "tracer/llama/graph.h"

namespace depthkv {
namespace {

void read_halves(const ggml_tensor& cache, std::int64_t first, std::span<std::uint16_t> out) {
  if (cache.type != GGML_TYPE_F16)
    throw Error(fmt::format("the engine's cache {} holds {}, expected f16", cache.name, ggml_type_name(cache.type)));
  ggml_backend_tensor_get(&cache, out.data(), to_size(first) * sizeof(std::uint16_t), out.size_bytes());
}

// Elements of a cache tensor from `first` on, as floats.
void read_cache(const ggml_tensor& cache, std::int64_t first, std::span<float> out,
                std::vector<std::uint16_t>& scratch) {
  scratch.resize(out.size());
  read_halves(cache, first, scratch);
  from_half(scratch, out);
}

void check_shape(const ggml_tensor& node, std::int64_t rows, std::int64_t heads) {
  if (node.type != GGML_TYPE_F32 || node.ne[1] != rows || node.ne[2] != heads || node.ne[3] != 1)
    throw Error(fmt::format("{} is {} [{}, {}, {}, {}], expected f32 with {} rows and {} heads", node.name,
                            ggml_type_name(node.type), node.ne[0], node.ne[1], node.ne[2], node.ne[3], rows, heads));
}

}  // namespace

Capture::Capture(const ModelCard& card, const LayerSink& sink, EngineWorkers& workers, Wanted wanted)
    : card_(card), sink_(sink), wanted_(std::move(wanted)), value_stores_(card.layers.size()), workers_(workers) {
  wanted_.attention.resize(card.layers.size());
  if (wanted_.unrotated) unrotation_.emplace(wanted_.threads);
}

void Capture::expect(std::int64_t first, std::int64_t rows, std::int64_t width) {
  first_ = first;
  rows_ = rows;
  width_ = width;
}

const LayerShape& Capture::shape(int layer) const {
  if (layer < 0 || to_size(layer) >= card_.layers.size())
    throw Error(fmt::format("the engine computed layer {} of a model with {} layers", layer, card_.layers.size()));
  return card_.layers[to_size(layer)];
}

bool Capture::wants(const ggml_tensor& node) {
  if (node.op == GGML_OP_SET_ROWS) {
    if (const auto layer = value_cache_layer(&node)) shape(*layer), value_stores_[to_size(*layer)] = &node;
    return false;
  }
  if (wanted_.input_norms && query_projection_layer(node)) return true;
  if (attention_inputs(node)) return wanted_.entries || wanted_.queries;
  if (!is_attention_softmax(node)) return false;
  const int layer = layer_of(*product_under(node.src[0]));
  shape(layer);
  return wanted_.attention[to_size(layer)];
}

void Capture::take(ggml_tensor& node) {
  const UseWorkers use(workers_);
  if (is_attention_softmax(node)) return take_attention(node, layer_of(*product_under(node.src[0])));
  if (query_projection_layer(node)) return take_inputs(*node.src[1]);
  const auto [layer, key_cache, queries] = *attention_inputs(node);
  if (wanted_.entries) {
    take_keys(*key_cache, layer);
    take_values(layer);
  }
  if (wanted_.queries) take_queries(*queries, *key_cache, layer);
}

// [D, rows]
void Capture::take_inputs(const ggml_tensor& inputs) {
  if (inputs.type != GGML_TYPE_F32 || ggml_nrows(&inputs) != rows_ || !ggml_is_contiguous(&inputs))
    throw Error(
        fmt::format("{}, which queries are projections of, is {} [{}, {}, {}, {}], expected {} adjacent rows of "
                    "f32; record without {}",
                    inputs.name, ggml_type_name(inputs.type), inputs.ne[0], inputs.ne[1], inputs.ne[2], inputs.ne[3],
                    rows_, to_string(Channel::repeat_max)));
  const std::span<const std::byte> bytes = host_bytes(inputs, scratch_);
  const auto* values = reinterpret_cast<const float*>(bytes.data());
  input_norms_.clear();
  for (std::int64_t row = 0; row < rows_; ++row) {
    double square = 0;
    for (std::int64_t i = 0; i < inputs.ne[0]; ++i, ++values)
      square += static_cast<double>(*values) * static_cast<double>(*values);
    input_norms_.push_back(static_cast<float>(std::sqrt(square)));
  }
}

// Elements of a position: all KV heads' vectors.
std::int64_t Capture::check_row(const ggml_tensor& cache, std::int64_t found, int layer) const {
  const LayerShape& heads = shape(layer);
  const std::int64_t row = std::int64_t{heads.kv_heads} * heads.head_dim;
  if (found != row)
    throw Error(
        fmt::format("{} has rows of {}, expected {} heads of {}", cache.name, found, heads.kv_heads, heads.head_dim));
  return row;
}

void Capture::take_keys(const ggml_tensor& cache, int layer) {
  const std::int64_t row = check_row(cache, cache.ne[0], layer);
  block_.resize(to_size(rows_ * row));
  read_cache(cache, first_ * row, block_, half_);
  deliver(Channel::keys, layer);
}

void Capture::take_values(int layer) {
  const ggml_tensor* store = value_stores_[to_size(layer)];
  if (store == nullptr) throw Error(fmt::format("layer {} reads cached keys but stores no values", layer));
  const ggml_tensor& cache = *store->view_src;
  // For flash attention, rows like the keys'.
  if (store->ne[0] != 1) {
    const std::int64_t row = check_row(cache, store->ne[0], layer);
    block_.resize(to_size(rows_ * row));
    read_cache(cache, first_ * row, block_, half_);
    return deliver(Channel::values, layer);
  }
  // Else transposed, [dimension][cell], and stored one by one.
  const LayerShape& heads = shape(layer);
  const std::int64_t row = std::int64_t{heads.kv_heads} * heads.head_dim;
  const std::int64_t cells = cache.ne[1];
  block_.resize(to_size(rows_ * row));
  std::vector<float> column(to_size(rows_));
  for (std::int64_t j = 0; j < row; ++j) {
    read_cache(cache, j * cells + first_, column, half_);
    for (std::int64_t i = 0; i < rows_; ++i) block_[to_size(i * row + j)] = column[to_size(i)];
  }
  deliver(Channel::values, layer);
}

// Where they lie if that is host memory.
HalfRows Capture::cached_keys(const ggml_tensor& cache, int layer) {
  const LayerShape& heads = shape(layer);
  const std::int64_t row = check_row(cache, cache.ne[0], layer);
  const std::int64_t count = first_ + rows_;
  if (in_host_memory(cache) && cache.type == GGML_TYPE_F16)
    return {static_cast<const std::uint16_t*>(cache.data), heads.kv_heads, count, heads.head_dim, row};
  keys_.resize(to_size(count * row));
  read_halves(cache, 0, keys_);
  return {keys_.data(), heads.kv_heads, count, heads.head_dim, row};
}

// The scheduler waits for the engine's device before it hands a node over.
std::optional<DeviceRows> Capture::on_device(const ggml_tensor& queries, const ggml_tensor& cache, int layer) const {
  const LayerShape& heads = shape(layer);
  if (!wanted_.on_device || cache.type != GGML_TYPE_F16) return std::nullopt;
  const auto stride = [&](int dimension) { return static_cast<std::int64_t>(queries.nb[dimension] / sizeof(float)); };
  const View there{
      static_cast<const float*>(queries.data), heads.query_heads, rows_, heads.head_dim, stride(2), stride(1)};
  const HalfRows keys{static_cast<const std::uint16_t*>(cache.data), heads.kv_heads, first_ + rows_, heads.head_dim,
                      check_row(cache, cache.ne[0], layer)};
  const std::optional<int> device = cuda_device_of(there, keys);
  return device ? std::optional(DeviceRows{*device, there, keys}) : std::nullopt;
}

void Capture::take_queries(const ggml_tensor& queries, const ggml_tensor& key_cache, int layer) {
  const LayerShape& heads = shape(layer);
  check_shape(queries, rows_, heads.query_heads);
  if (queries.ne[0] != heads.head_dim || queries.nb[0] != sizeof(float))
    throw Error(fmt::format("{} has vectors of {} dimensions, expected {} adjacent ones", queries.name, queries.ne[0],
                            heads.head_dim));
  const std::span<const std::byte> bytes = host_bytes(queries, scratch_);
  const std::size_t vector = to_size(heads.head_dim);
  block_.resize(to_size(rows_ * heads.query_heads) * vector);
  float* out = block_.data();
  for (std::size_t row = 0; row < to_size(rows_); ++row)
    for (std::size_t head = 0; head < to_size(heads.query_heads); ++head, out += vector)
      std::memcpy(out, bytes.data() + row * queries.nb[1] + head * queries.nb[2], vector * sizeof(float));
  if (wanted_.input_norms && input_norms_.empty())
    throw Error(fmt::format("layer {} shows no projection of its queries; record without {}", layer,
                            to_string(Channel::repeat_max)));
  const std::optional<DeviceRows> there = wanted_.cached_keys ? on_device(queries, key_cache, layer) : std::nullopt;
  sink_({.channel = Channel::queries,
         .layer = layer,
         .first = first_,
         .rows = rows_,
         .data = block_,
         .unrotated = unrotated(queries, layer),
         .cached_keys = wanted_.cached_keys && !there ? cached_keys(key_cache, layer) : HalfRows{},
         .on_device = there,
         .input_norms = input_norms_});
  input_norms_.clear();  // the next layer's have to come before its queries
}

// Of the queries in block_; nothing where it isn't asked for.
std::span<const float> Capture::unrotated(const ggml_tensor& queries, int layer) {
  if (!unrotation_) return {};
  const bool rotates = card_.rotary_layout == "other" ||
                       (card_.rotary_layout != "none" && !card_.rotations.at(to_size(layer)).frequencies.empty());
  return rotates ? unrotation_->undo(queries, block_) : block_;
}

void Capture::take_attention(const ggml_tensor& softmax, int layer) {
  const LayerShape& heads = shape(layer);
  check_shape(softmax, rows_, heads.query_heads);
  if (softmax.ne[0] < width_ || !ggml_is_contiguous(&softmax))
    throw Error(
        fmt::format("{} is {} wide, expected {} positions or more, adjacent", softmax.name, softmax.ne[0], width_));
  // Handed over where it lies: matrices are too large to be copied for nothing.
  const std::span<const std::byte> bytes = host_bytes(softmax, scratch_);
  const auto* values = reinterpret_cast<const float*>(bytes.data());
  sink_({.channel = Channel::attention,
         .layer = layer,
         .first = first_,
         .rows = rows_,
         .width = softmax.ne[0],
         .data = {values, bytes.size() / sizeof(float)}});
}

void Capture::deliver(Channel channel, int layer) {
  sink_({.channel = channel, .layer = layer, .first = first_, .rows = rows_, .data = block_});
}

void check_cells(const ggml_tensor& key_store, std::int64_t first, std::int64_t rows) {
  const ggml_tensor& indices = *key_store.src[1];
  if (indices.type != GGML_TYPE_I64 || indices.ne[0] != rows)
    throw Error(fmt::format("{} holds {} {} indices, expected {} i64", indices.name, indices.ne[0],
                            ggml_type_name(indices.type), rows));
  std::vector<std::int64_t> cells(to_size(rows));
  ggml_backend_tensor_get(&indices, cells.data(), 0, cells.size() * sizeof(std::int64_t));
  for (std::int64_t i = 0; i < rows; ++i)
    if (cells[to_size(i)] != first + i)
      throw Error(fmt::format(
          "the engine put position {} into cache cell {}, expected cell {}; this engine version is not supported",
          first + i, cells[to_size(i)], first + i));
}

CellCheck::CellCheck(const ModelCard& card) : layers_{0} {
  const auto other = std::ranges::find_if(
      card.layers, [&](const LayerShape& layer) { return layer.window != card.layers.front().window; });
  if (other != card.layers.end()) layers_.insert(static_cast<int>(other - card.layers.begin()));
}

bool CellCheck::wants(const ggml_tensor& node) {
  if (node.op != GGML_OP_SET_ROWS) return false;
  const auto layer = key_cache_layer(&node);
  return layer && layers_.contains(*layer);
}

}  // namespace depthkv
