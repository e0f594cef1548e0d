// SPDX-License-Identifier: Apache-2.0
#include "tracer/llama/card.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>

#include "depthkv/error.h"
#include "depthkv/model.h"
#include "tracer/llama/graph.h"
#include "tracer/llama/rotation.h"

namespace depthkv {
namespace {

std::string metadata(const llama_model* model, const std::string& key, const std::string& fallback) {
  char text[256];
  return llama_model_meta_val_str(model, key.c_str(), text, sizeof text) >= 0 ? text : fallback;
}

// What is visible to a row that has cells 0, 1, ... behind it, of which cell 0 lies just outside of a sliding window
// and cell 1 just inside: which layers have the window.
class WindowProbe : public Watcher {
 public:
  bool wants(const ggml_tensor& node) override { return is_attention_softmax(node); }
  void take(ggml_tensor& node) override {
    const ggml_tensor& mask = *node.src[1];
    float seen[2];
    if (mask.type != GGML_TYPE_F32)
      throw Error(fmt::format("the engine's mask {} holds {}, expected f32", mask.name, ggml_type_name(mask.type)));
    ggml_backend_tensor_get(&mask, seen, 0, sizeof seen);
    visible_[layer_of(*product_under(node.src[0]))] = {std::isfinite(seen[0]), std::isfinite(seen[1])};
  }
  // True where the layer has the window. Throws where it sees something else.
  bool windowed(int layer, const std::string& file) const {
    const auto [outside, inside] = visible_.at(layer);
    if (!inside)
      throw InputError(
          fmt::format("{} has a sliding window of another kind in layer {}, which is not supported; choose "
                      "a model whose windows are the last positions",
                      file, layer));
    return !outside;
  }

 private:
  std::map<int, std::pair<bool, bool>> visible_;
};

// What one token's graph shows of each layer.
class Probe : public Watcher {
 public:
  bool wants(const ggml_tensor& node) override {
    if (node.op == GGML_OP_SET_ROWS) {
      if (const auto layer = value_cache_layer(&node)) value_width_[*layer] = ggml_nelements(node.src[0]);
    } else if (node.op == GGML_OP_SOFT_MAX && is_attention_softmax(node)) {
      const ggml_tensor& product = *product_under(node.src[0]);
      const auto heads = static_cast<int>(product.src[1]->ne[2]);
      shapes_[layer_of(product)] = {heads, static_cast<int>(product.src[0]->ne[2]),
                                    static_cast<int>(product.src[1]->ne[0])};
      facts_.push_back(softmax_facts(node));
    } else if (const auto layer = output_projection_layer(node)) {
      projections_[*layer] = node.src[0];
    }
    return false;
  }
  void take(ggml_tensor& /*node*/) override {}

  void describe(ModelCard& card, int layers, const std::string& file) const {
    const auto refuse = [&](const std::string& why) -> InputError {
      return InputError(fmt::format("{} (architecture {}) {}, which is not supported; choose a plain attention model",
                                    file, card.architecture, why));
    };
    if (static_cast<int>(shapes_.size()) != layers)
      throw refuse(fmt::format("has {} layers of which {} show a plain attention softmax", layers, shapes_.size()));
    for (const auto& [layer, shape] : shapes_) {
      const auto width = value_width_.find(layer);
      if (layer != static_cast<int>(card.layers.size()) || shape.kv_heads <= 0 ||
          shape.query_heads % shape.kv_heads != 0 || width == value_width_.end() ||
          width->second != std::int64_t{shape.kv_heads} * shape.head_dim)
        throw refuse(fmt::format("has keys and values of different shapes in layer {}", layer));
      card.layers.push_back(shape);
    }
    const SoftmaxFacts& first = facts_.front();
    for (const SoftmaxFacts& facts : facts_) {
      if (facts.position_bias) throw refuse("adds position biases to its logits");
      if (facts.sinks) throw refuse("has attention sinks");
      if (facts.scale != first.scale || facts.softcap != first.softcap)
        throw refuse("has softmax scales that differ between layers");
    }
    // The engine caps before it scales; the card says after. They are the same only without a scale.
    if (first.softcap != 0 && first.scale != 1) throw refuse("caps its logits before scaling them");
    card.attention_scale = first.scale;
    card.logit_softcap = first.softcap;
  }

  // Those that take all heads' outputs, in their order.
  std::vector<const ggml_tensor*> projections(const ModelCard& card) const {
    std::vector<const ggml_tensor*> all(card.layers.size());
    for (const auto& [layer, weights] : projections_) {
      const LayerShape& shape = card.layers.at(static_cast<std::size_t>(layer));
      if (weights->ne[0] == std::int64_t{shape.query_heads} * shape.head_dim)
        all[static_cast<std::size_t>(layer)] = weights;
    }
    return all;
  }

 private:
  std::map<int, const ggml_tensor*> projections_;
  std::map<int, LayerShape> shapes_;
  std::map<int, std::int64_t> value_width_;
  std::vector<SoftmaxFacts> facts_;
};

void describe_rotation(const RotationProbe& probe, ModelCard& card) {
  card.rotary_layout = probe.layout();
  card.rotations = probe.rotations();
  if (!card.rotations.empty() && card.rotations.size() != card.layers.size())
    throw Error(fmt::format("{} stores keys in {} of {} layers, expected all; this architecture is not supported",
                            card.name, card.rotations.size(), card.layers.size()));
}

// Position 0 is cached. Two more follow, and the last is moved up to where the next token sees position 1 as the first
// of its window and position 0 no longer.
void find_windows(const llama_model* model, Session& session, ModelCard& card, const std::string& file) {
  const std::int64_t window = llama_model_n_swa(model);
  if (window <= 0) return;
  WindowProbe probe;
  session.watch({});
  const BatchRow more[] = {{.token = 0, .position = 1}, {.token = 0, .position = 2, .logits = true}};
  session.decode(more);
  session.copy_sequence(0, 1);  // else the engine would reuse the cell that left the window
  if (window < 3 || !session.shift(0, 2, window - 3))
    throw InputError(
        fmt::format("{} has sliding windows of {} positions that can't be examined, which is not supported; "
                    "choose another model",
                    file, window));
  session.watch({&probe});
  const BatchRow last{.token = 0, .position = window, .logits = true};
  session.decode({&last, 1});
  for (std::size_t l = 0; l < card.layers.size(); ++l)
    if (probe.windowed(static_cast<int>(l), file)) card.layers[l].window = window;
}

}  // namespace

void check_gguf(const std::filesystem::path& file) {
  std::error_code status;
  if (!std::filesystem::is_regular_file(file, status))
    throw InputError(
        fmt::format("{}: no such file, expected a GGUF model; check the path of the model", file.string()));
  char magic[4] = {};
  std::ifstream in(file, std::ios::binary);
  if (!in.read(magic, sizeof magic) || std::string_view(magic, 4) != "GGUF")
    throw InputError(fmt::format(
        "{}: not a GGUF model (its first four bytes are not \"GGUF\"); convert the model first", file.string()));
}

void check_supported(const llama_model* model, const std::filesystem::path& file) {
  const auto refuse = [&](std::string_view kind) {
    throw InputError(fmt::format(
        "{} (architecture {}) is {}, which is not supported; choose a decoder whose every layer has full attention",
        file.string(), metadata(model, "general.architecture", "unknown"), kind));
  };
  if (llama_model_has_encoder(model) || !llama_model_has_decoder(model)) refuse("an encoder");
  if (llama_model_is_recurrent(model)) refuse("recurrent");
  if (llama_model_is_hybrid(model)) refuse("a hybrid of attention and recurrent layers");
  if (llama_model_is_diffusion(model)) refuse("a diffusion model");
}

std::string fingerprint(const std::filesystem::path& file) {
  constexpr std::uint64_t kBlock = 4096;
  constexpr std::uint64_t kBlocks = 256;
  std::uint64_t hash = 0xcbf29ce484222325U;  // FNV-1a
  const auto mix = [&hash](std::uint8_t byte) { hash = (hash ^ byte) * 0x100000001b3U; };
  const std::uint64_t size = std::filesystem::file_size(file);
  for (unsigned shift = 0; shift < 64; shift += 8) mix(static_cast<std::uint8_t>(size >> shift));
  std::ifstream in(file, std::ios::binary);
  std::vector<char> block(kBlock);
  const std::uint64_t last = size > kBlock ? size - kBlock : 0;
  const std::uint64_t count = std::min(kBlocks, last / kBlock + 2);
  for (std::uint64_t i = 0; i < count; ++i) {
    in.clear();
    in.seekg(static_cast<std::streamoff>(last / (count - 1) * i + last % (count - 1) * i / (count - 1)));
    in.read(block.data(), static_cast<std::streamsize>(kBlock));
    for (std::streamsize j = 0; j < in.gcount(); ++j)
      mix(static_cast<std::uint8_t>(block[static_cast<std::size_t>(j)]));
  }
  return fmt::format("{:016x}", hash);
}

ModelFacts examine(llama_model* model, const std::filesystem::path& file, int threads, bool offload) {
  ModelCard card;
  card.architecture = metadata(model, "general.architecture", "unknown");
  card.name = metadata(model, "general.name", file.stem().string());
  card.fingerprint = fingerprint(file);
  card.engine = llama_engine_version();
  card.device = offload ? "gpu" : "cpu";
  card.context_length = llama_model_n_ctx_train(model);
  card.vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
  card.embedding = llama_model_n_embd(model);
  if (llama_model_rope_type(model) != LLAMA_ROPE_TYPE_NONE) {
    try {
      card.rotary_base = std::stod(metadata(model, card.architecture + ".rope.freq_base", "10000"));
    } catch (const std::logic_error&) {
      throw InputError(fmt::format("{}: {}.rope.freq_base is not a number", file.string(), card.architecture));
    }
  }
  Probe probe;
  RotationProbe rotation(threads);
  Session session(model, {.cells = 8, .batch = 2, .sequences = 2, .threads = threads, .offload = offload});
  session.watch({&probe, &rotation});
  const BatchRow row{.token = 0, .logits = true};
  session.decode({&row, 1});
  probe.describe(card, llama_model_n_layer(model), file.string());
  describe_rotation(rotation, card);
  find_windows(model, session, card, file.string());
  return {card, probe.projections(card), rotation.depends_on_context()};
}

ModelCard rotated_at(llama_model* model, ModelCard card, std::int64_t cells, int threads, bool offload) {
  RotationProbe rotation(threads);
  Session session(model, {.cells = cells, .batch = 1, .threads = threads, .offload = offload});
  session.watch({&rotation});
  const BatchRow row{.token = 0, .logits = true};
  session.decode({&row, 1});
  describe_rotation(rotation, card);
  return card;
}

}  // namespace depthkv
