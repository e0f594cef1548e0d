// SPDX-License-Identifier: Apache-2.0
#include "tracer/llama/rotation.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>

#include "depthkv/error.h"
#include "tracer/llama/engine.h"

namespace depthkv {
namespace {

// The parameters of GGML_OP_ROPE, as ggml_rope_ext takes them.
struct RopeParams {
  int n_dims;
  int mode;
  int n_ctx_orig;
  float freq_base;
  float freq_scale;
  float ext_factor;
  float attn_factor;
  float beta_fast;
  float beta_slow;

  explicit RopeParams(const ggml_tensor& rope)
      : n_dims(rope.op_params[1]), mode(rope.op_params[2]), n_ctx_orig(rope.op_params[4]) {
    float* const reals[] = {&freq_base, &freq_scale, &ext_factor, &attn_factor, &beta_fast, &beta_slow};
    for (std::size_t i = 0; i < std::size(reals); ++i) std::memcpy(reals[i], rope.op_params + 5 + i, sizeof(float));
  }
  // What the rotation multiplies lengths by; YaRN's is not 1.
  float magnitude() const {
    return ext_factor != 0 ? attn_factor * (1.0F + 0.1F * std::log(1.0F / freq_scale)) : attn_factor;
  }
};

const ggml_tensor& rope_below(const ggml_tensor& node) {
  const ggml_tensor* at = &node;
  for (int steps = 0; at != nullptr && steps < 8; ++steps, at = at->src[0]) {
    if (at->op == GGML_OP_ROPE) return *at;
    const bool passes = at->op == GGML_OP_VIEW || at->op == GGML_OP_PERMUTE || at->op == GGML_OP_RESHAPE ||
                        at->op == GGML_OP_CONT || at->op == GGML_OP_SCALE;
    if (!passes) break;
  }
  throw Error(
      fmt::format("{} comes from {}, expected a rotation; record this model without query_mean and "
                  "query_second_moment",
                  node.name, at == nullptr ? "nothing" : ggml_op_name(at->op)));
}

ggml_tensor* copy_of(ggml_context* context, const ggml_tensor& node) {
  ggml_tensor* copy = ggml_dup_tensor(context, &node);
  ggml_backend_tensor_get(&node, copy->data, 0, ggml_nbytes(&node));
  return copy;
}

}  // namespace

Unrotation::Unrotation(int threads) : backend_(cpu_backend(threads)) {}

std::span<const float> Unrotation::undo(const ggml_tensor& node, std::span<const float> queries) {
  const ggml_tensor& rope = rope_below(node);
  const RopeParams params(rope);
  const std::int64_t d = node.ne[0];
  const std::int64_t rows = node.ne[1];
  const std::int64_t heads = node.ne[2];
  if (rope.src[1]->ne[0] != rows)
    throw Error(
        fmt::format("{} rotates {} rows by {} positions, expected one each; record this model without "
                    "query_mean and query_second_moment",
                    rope.name, rows, rope.src[1]->ne[0]));
  const std::size_t needed = 3 * queries.size_bytes() + ggml_graph_overhead() + 16 * ggml_tensor_overhead() +
                             ggml_nbytes(rope.src[1]) + (std::size_t{1} << 16);
  if (memory_.size() < needed) memory_.resize(needed);
  const std::unique_ptr<ggml_context, decltype(&ggml_free)> context(ggml_init({memory_.size(), memory_.data(), false}),
                                                                    ggml_free);
  ggml_tensor* rotated = ggml_new_tensor_3d(context.get(), GGML_TYPE_F32, d, heads, rows);
  std::memcpy(rotated->data, queries.data(), queries.size_bytes());
  ggml_tensor* factors = rope.src[2] != nullptr ? copy_of(context.get(), *rope.src[2]) : nullptr;
  ggml_tensor* result =
      ggml_rope_ext_back(context.get(), rotated, copy_of(context.get(), *rope.src[1]), factors, params.n_dims,
                         params.mode, params.n_ctx_orig, params.freq_base, params.freq_scale, params.ext_factor,
                         params.attn_factor, params.beta_fast, params.beta_slow);
  ggml_cgraph* graph = ggml_new_graph(context.get());
  ggml_build_forward_expand(graph, result);
  if (ggml_backend_graph_compute(backend_.get(), graph) != GGML_STATUS_SUCCESS)
    throw Error(fmt::format("the engine could not undo the rotation of {}", node.name));
  const auto* values = static_cast<const float*>(result->data);
  result_.assign(values, values + queries.size());
  // Rotating forth and back multiplies by the magnitude twice.
  const float square = params.magnitude() * params.magnitude();
  if (square != 1.0F)
    for (std::size_t i = 0; i < result_.size(); ++i)
      if (static_cast<std::int64_t>(i) % d < params.n_dims) result_[i] /= square;
  return result_;
}

}  // namespace depthkv
