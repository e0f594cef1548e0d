// SPDX-License-Identifier: Apache-2.0
// Model: the one virtual interface, the outside world. llama.cpp implements it in tracer/llama/.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "depthkv/trace.h"

namespace depthkv {

using EntrySets = std::vector<std::vector<std::vector<std::uint32_t>>>;  // [layer][KV head], ascending positions

// What a branch doesn't see.
struct KeepMask {
  EntrySets pruned;  // entries below the cut that a policy removed
  // For policies that evict or select while the model decodes: what is hidden, too, from the token at a position behind
  // the cut, which may be any entry before it, also of tokens that the branch added. Empty: nothing. What it returns
  // depends on the position alone; it is called in any order and more than once (docs/decisions/021).
  std::function<EntrySets(std::int64_t position)> hidden_at = {};

  static KeepMask everything(const ModelCard& model);  // prunes nothing
};

// Queries [query head, row, d] and the keys of all positions up to the last row in memory of a CUDA device, where an
// engine has them. Only ops of Device::cuda can read them.
struct DeviceRows {
  int device = 0;
  View queries;
  HalfRows keys;
};

// A block of rows of one layer, as the engine computed them. Valid during the call only.
// keys, values: [rows, KV heads, d]; queries: [rows, query heads,
// d]; attention: [query heads, rows, width], width >= first + rows.
struct LayerBlock {
  Channel channel = Channel::keys;
  int layer = 0;
  std::int64_t first = 0;  // position of the first row
  std::int64_t rows = 0;
  std::int64_t width = 0;  // attention only; 0 above the diagonal
  std::span<const float> data = {};
  std::span<const float> unrotated = {};  // queries only, where asked for: the same rows before rotation
  HalfRows cached_keys = {};              // queries only, where asked for: the keys of all positions up to the last row
  std::optional<DeviceRows> on_device = {};  // queries only, in place of cached_keys, where that is allowed
  std::span<const float> input_norms = {};  // queries of passages only: [rows] L2 norms of what they are projections of
};
using LayerSink = std::function<void(const LayerBlock&)>;

// Tokens that are fed behind the first positions of a prompt, in place of its rest, and forgotten again.
struct Passage {
  std::int64_t behind = 0;  // positions of the prompt before it, all of which it sees
  std::vector<Token> tokens;
};
// Queries of a passage's rows, with cached keys and input norms: block by block, one passage after the other.
using PassageSink = std::function<void(std::size_t passage, const LayerBlock&)>;

// Hidden states of rows of the prompt at one stage of a layer. Valid during the call only. In every batch of rows, the
// stages come layer by layer in their order. What the first layer's input norm reads comes before them, as stage mlp of
// layer -1.
struct StateBlock {
  Stage stage = Stage::pre;
  int layer = 0;
  std::int64_t first = 0;  // position of the first row
  std::int64_t rows = 0;
  std::span<const float> data;  // [rows, D]
};
using StateSink = std::function<void(const StateBlock&)>;

// Continuations of one prefilled prefix, one per mask ("branch"). Pruned entries are invisible to every token that a
// branch adds; the prefix itself was computed with the full cache. Branches never see each other.
class Branches {
 public:
  virtual ~Branches() = default;

  // Feeds the same tokens to one branch after the other, each in the same place of the cache, so that branches with
  // equal masks give equal bits (docs/decisions/006). visit(branch, step, logits): logits after tokens[step], valid
  // during the call. Branches and, within each, steps rise; only steps >= first_visited are visited. Afterwards every
  // branch is back at the prefix.
  using Visit = std::function<void(std::size_t branch, std::int64_t step, std::span<const float> logits)>;
  virtual void score(std::span<const Token> tokens, std::int64_t first_visited, const Visit& visit) = 0;

  // Feeds `lead` to the first `count` branches (by default all), then decodes greedily (ties to the lower token) until
  // an end token or max_tokens, as many branches together as branch_room() says, those whose masks change alone.
  // Returns the new tokens per branch, without the end token. Afterwards every branch is back at the prefix.
  static constexpr std::size_t kAll = std::numeric_limits<std::size_t>::max();
  virtual std::vector<std::vector<Token>> generate(std::span<const Token> lead, std::int64_t max_tokens,
                                                   std::size_t count = kAll) = 0;
};

// How many branches decode together, and what their cache takes. The same for a model, prompt and machine, whatever
// else runs on it: which branches share a batch decides the last bits of their logits.
struct BranchRoom {
  std::int64_t together = 1;
  std::int64_t cells = 0;  // the prefix, and room for each of those together
  std::int64_t bytes = 0;  // of all layers' keys and values, in half precision
};
// `memory`: bytes of the device that holds the cache; branches take at most a quarter of it, one always fits.
BranchRoom branch_room(const ModelCard& card, std::int64_t prefix, std::size_t branches, std::int64_t capacity,
                       std::int64_t memory);
std::int64_t machine_memory();  // bytes of this machine, or of the container if that has less

// One turn of a conversation. The roles that every chat template knows: system (first only), user, assistant.
struct Message {
  std::string role;
  std::string content;
};

class Model {
 public:
  virtual ~Model() = default;
  virtual const ModelCard& card() const = 0;
  // The card of a recording of up to `tokens` tokens, which belongs into its trace: card(), but for the rotation where
  // the engine rotates long contexts in another way. Valid until the next call.
  virtual const ModelCard& card_for(std::int64_t /*tokens*/) { return card(); }

  virtual std::vector<Token> tokenize(std::string_view text, bool with_bos, bool parse_special) const = 0;
  virtual std::string detokenize(std::span<const Token> tokens) const = 0;  // exact bytes, special tokens included
  // The messages inside the model's chat template, up to where the answer
  // starts; if it has none, their contents with blank lines between them.
  virtual std::string chat(std::span<const Message> messages) const = 0;

  // Runs the prompt, then the answer, with the full cache, and hands every computed row of every layer to `sink`.
  // A given answer is teacher-forced; otherwise up to max_new tokens are decoded greedily (end token included in the
  // returned answer). Passages, if any, come last. Exceptions of the sinks come out of here. Returns the answer.
  struct RecordRequest {
    std::span<const Token> prompt;
    std::span<const Token> answer = {};  // empty: generate
    std::int64_t max_new = 0;
    // Per layer: whether the rows of the engine's own softmax are wanted. If none are, the engine may compute attention
    // in a way that has none, which is faster.
    std::vector<bool> attention = {};
    bool unrotated_queries = false;
    bool cached_keys = false;  // beside the queries
    bool on_device = false;    // cached keys may stay on the device that the engine has them on
    StateSink states = {};     // empty: not wanted. Costs the logits of every prompt row. Throws InputError where the
                               // architecture has no such stages
    std::span<const Passage> passages = {};  // fed once prompt and answer have been computed
    PassageSink passage_sink = {};
  };
  virtual std::vector<Token> record(const RecordRequest& request, const LayerSink& sink) = 0;

  // A layer's output projection, by query head: [query head, d, D]. Throws Error where the engine doesn't show it.
  virtual Tensor output_projection(int layer) const = 0;

  // Prefills `prefix` once. `capacity`: the most tokens that any branch will add.
  virtual std::unique_ptr<Branches> branch(std::span<const Token> prefix, std::span<const KeepMask> masks,
                                           std::int64_t capacity) = 0;
};

inline constexpr int kEngineBatch = 512;

// llama.cpp on a GGUF file. Throws InputError if the file is missing, broken or of an unsupported kind.
struct LlamaOptions {
  std::filesystem::path model;
  int threads = 0;           // 0: one per core
  int batch = kEngineBatch;  // most tokens per engine call
  int gpu_layers = 0;
};
std::unique_ptr<Model> open_llama_model(const LlamaOptions& options);
std::string llama_engine_version();

}  // namespace depthkv
