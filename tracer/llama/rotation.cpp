// SPDX-License-Identifier: Apache-2.0
#include "tracer/llama/rotation.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numbers>
#include <string_view>

#include "depthkv/error.h"
#include "kernels/rotary.h"
#include "tracer/llama/graph.h"

namespace depthkv {
namespace {

// The parameters of GGML_OP_ROPE that matter here; the operation itself gets all of them as they are.
struct RopeParams {
  int n_dims;
  int mode;
  float freq_scale;
  float ext_factor;
  float attn_factor;

  explicit RopeParams(const ggml_tensor& rope)
      : n_dims(rope.op_params[1]),
        mode(rope.op_params[2]),
        freq_scale(real(rope, 6)),
        ext_factor(real(rope, 7)),
        attn_factor(real(rope, 8)) {}
  static float real(const ggml_tensor& rope, std::size_t index) {
    float value = 0;
    std::memcpy(&value, rope.op_params + index, sizeof value);
    return value;
  }
  // What the rotation multiplies lengths by; YaRN's is not 1.
  float magnitude() const {
    return ext_factor != 0 ? attn_factor * (1.0F + 0.1F * std::log(1.0F / freq_scale)) : attn_factor;
  }
  // Positions that the engine gives each token: time, height and width of images, and one more. A text's are all the
  // token's own, but for the last, which is 0.
  std::int64_t positions_per_token() const { return (mode & GGML_ROPE_TYPE_MROPE) != 0 ? 4 : 1; }
};

// Operations that a rotation shows through.
bool passes(const ggml_tensor& node) {
  return node.op == GGML_OP_VIEW || node.op == GGML_OP_PERMUTE || node.op == GGML_OP_RESHAPE ||
         node.op == GGML_OP_CONT || node.op == GGML_OP_SCALE;
}

// The rotation that a node shows, or what hides it.
const ggml_tensor* below(const ggml_tensor* node) {
  for (int steps = 0; node != nullptr && steps < 8 && passes(*node); ++steps) node = node->src[0];
  return node;
}

// Whether a rotation lies anywhere between a node and the weights that made it.
bool has_rotation(const ggml_tensor* node, int steps = 8) {
  if (node == nullptr || steps == 0 || node->op == GGML_OP_MUL_MAT) return false;
  return node->op == GGML_OP_ROPE || has_rotation(node->src[0], steps - 1) || has_rotation(node->src[1], steps - 1);
}

ggml_tensor* copy_of(ggml_context* context, const ggml_tensor& node) {
  ggml_tensor* copy = ggml_dup_tensor(context, &node);
  ggml_backend_tensor_get(&node, copy->data, 0, ggml_nbytes(&node));
  return copy;
}

}  // namespace

RotaryOperation::RotaryOperation(int threads) : backend_(cpu_backend(threads)) {}

std::span<float> RotaryOperation::apply(const ggml_tensor& rope, std::span<const float> vectors, std::int64_t d,
                                        std::span<const std::int32_t> positions, bool back) {
  const RopeParams params(rope);
  const auto rows = static_cast<std::int64_t>(positions.size());
  const std::int64_t heads = static_cast<std::int64_t>(vectors.size()) / d / rows;
  const std::size_t axes = static_cast<std::size_t>(params.positions_per_token());
  const std::size_t needed = 3 * vectors.size_bytes() + ggml_graph_overhead() + 16 * ggml_tensor_overhead() +
                             axes * positions.size_bytes() + (std::size_t{1} << 16);
  if (memory_.size() < needed) memory_.resize(needed);
  const std::unique_ptr<ggml_context, decltype(&ggml_free)> context(ggml_init({memory_.size(), memory_.data(), false}),
                                                                    ggml_free);
  ggml_tensor* input = ggml_new_tensor_3d(context.get(), GGML_TYPE_F32, d, heads, rows);
  std::memcpy(input->data, vectors.data(), vectors.size_bytes());
  ggml_tensor* at = ggml_new_tensor_1d(context.get(), GGML_TYPE_I32, static_cast<std::int64_t>(axes) * rows);
  std::memset(at->data, 0, ggml_nbytes(at));
  for (std::size_t axis = 0; axis < std::max<std::size_t>(1, axes - 1); ++axis)
    std::memcpy(static_cast<std::int32_t*>(at->data) + axis * positions.size(), positions.data(),
                positions.size_bytes());
  ggml_tensor* factors = rope.src[2] != nullptr ? copy_of(context.get(), *rope.src[2]) : nullptr;
  const auto make = back ? ggml_rope_ext_back : ggml_rope_ext;
  ggml_tensor* result = make(context.get(), input, at, factors, params.n_dims, params.mode, 0, 1, 1, 0, 1, 0, 0);
  std::memcpy(result->op_params, rope.op_params, sizeof rope.op_params);
  ggml_cgraph* graph = ggml_new_graph(context.get());
  ggml_build_forward_expand(graph, result);
  if (ggml_backend_graph_compute(backend_.get(), graph) != GGML_STATUS_SUCCESS)
    throw Error(fmt::format("the engine could not compute the rotation of {}", rope.name));
  const auto* values = static_cast<const float*>(result->data);
  result_.assign(values, values + vectors.size());
  return result_;
}

std::span<const float> Unrotation::undo(const ggml_tensor& node, std::span<const float> queries) {
  const ggml_tensor* rope = below(&node);
  if (rope == nullptr || rope->op != GGML_OP_ROPE)
    throw Error(
        fmt::format("{} comes from {}, expected a rotation; record this model without query_mean and "
                    "query_second_moment",
                    node.name, rope == nullptr ? "nothing" : ggml_op_name(rope->op)));
  const RopeParams params(*rope);
  const std::int64_t d = node.ne[0];
  const std::int64_t rows = node.ne[1];
  if (rope->src[1]->ne[0] != rows * params.positions_per_token())
    throw Error(
        fmt::format("{} rotates {} rows by {} positions, expected {} each; record this model without "
                    "query_mean and query_second_moment",
                    rope->name, rows, rope->src[1]->ne[0], params.positions_per_token()));
  std::vector<std::int32_t> positions(static_cast<std::size_t>(rows));
  ggml_backend_tensor_get(rope->src[1], positions.data(), 0, positions.size() * sizeof(std::int32_t));
  const std::span<float> result = operation_.apply(*rope, queries, d, positions, true);
  // Rotating forth and back multiplies by the magnitude twice.
  const float square = params.magnitude() * params.magnitude();
  if (square == 1.0F) return result;
  const std::int64_t first = rope->op_params[15];
  for (std::size_t i = 0; i < result.size(); ++i) {
    const std::int64_t c = static_cast<std::int64_t>(i) % d;
    if (c >= first && c < first + params.n_dims) result[i] /= square;
  }
  return result;
}

bool RotationProbe::wants(const ggml_tensor& node) {
  return node.op == GGML_OP_SET_ROWS && key_cache_layer(&node).has_value();
}

void RotationProbe::take(ggml_tensor& node) {
  const int layer = *key_cache_layer(&node);
  const ggml_tensor* rope = below(node.src[0]);
  if (rope != nullptr && rope->op == GGML_OP_ROPE) {
    layers_[layer] = measure(*rope, rope->ne[0]);
    const ggml_tensor* factors = rope->src[2];
    if (factors != nullptr && std::string_view(factors->name).find("rope_factors_") != std::string_view::npos)
      depends_on_context_ = true;
  } else {
    // A leaf may be the copy of what another device has computed.
    const bool unknown = rope == nullptr || rope->op == GGML_OP_NONE || has_rotation(rope);
    layers_[layer] = {unknown ? "other" : "none", {}};
  }
}

// Every unit vector of a head is rotated to some positions. Position 0 shows the magnitude, position 1 the frequencies
// (relative to themselves as exact as the engine's floats, since sine is near its argument where it is small); whether
// our own rotation by these does the same is seen at the others.
RotationProbe::Seen RotationProbe::measure(const ggml_tensor& rope, std::int64_t d) {
  constexpr std::array<std::int32_t, 5> kPositions{0, 1, 2, 11, 200};
  constexpr float kTolerance = 5e-4F;  // what 200 positions make of the engine's rounding of an angle
  const RopeParams params(rope);
  const auto width = static_cast<std::size_t>(d);
  std::vector<float> units(kPositions.size() * width * width);
  for (std::size_t i = 0; i < kPositions.size() * width; ++i) units[i * width + i % width] = 1;
  const std::span<const float> turned = operation_.apply(rope, units, d, kPositions, false);

  const bool interleaved = params.mode == GGML_ROPE_TYPE_NORMAL;
  Rotary rotary{interleaved ? Rotary::Pairs::interleaved : Rotary::Pairs::half_split,
                std::vector<double>(static_cast<std::size_t>(params.n_dims) / 2), double{turned[0]}};
  for (std::size_t c = 0; c < rotary.frequencies.size(); ++c) {
    const auto [i, j] = rotary_pair(rotary, c);
    const float* unit = turned.data() + (width + i) * width;  // at position 1
    const double angle = std::atan2(double{unit[j]}, double{unit[i]});
    rotary.frequencies[c] = angle < 0 ? angle + 2 * std::numbers::pi : angle;
  }
  for (std::size_t row = 0; row < units.size() / width; ++row) {
    const std::span unit = std::span(units).subspan(row * width, width);
    rotate(unit, kPositions[row / width], rotary);
    const auto near = [](float a, float b) { return std::abs(a - b) <= kTolerance; };
    if (!std::ranges::equal(unit, turned.subspan(row * width, width), near)) return {"other", {}};
  }
  return {interleaved ? "interleaved" : "half_split", {std::move(rotary.frequencies), rotary.magnitude}};
}

std::string RotationProbe::layout() const {
  std::string layout = "none";
  for (const auto& [layer, seen] : layers_) {
    if (seen.layout == "none") continue;
    if (layout != "none" && seen.layout != layout) return "other";
    layout = seen.layout;
  }
  return layout;
}

std::vector<LayerRotation> RotationProbe::rotations() const {
  std::vector<LayerRotation> rotations;
  if (layout() == "none" || layout() == "other") return rotations;
  for (const auto& [layer, seen] : layers_) rotations.push_back(seen.rotation);
  return rotations;
}

}  // namespace depthkv
