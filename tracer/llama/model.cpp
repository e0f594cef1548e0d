// SPDX-License-Identifier: Apache-2.0
#include "tracer/llama/model.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "depthkv/error.h"
#include "kernels/parallel.h"
#include "tracer/llama/capture.h"
#include "tracer/llama/card.h"
#include "tracer/llama/graph.h"
#include "tracer/llama/states.h"
#include "tracer/llama/text.h"
#include "tracer/repetition.h"

namespace depthkv {
namespace {

LlamaModelHandle load(const LlamaOptions& options) {
  if (options.batch < 1) throw InputError(fmt::format("the batch is {}, expected at least 1 token", options.batch));
  check_gguf(options.model);
  start_engine();
  llama_model_params params = llama_model_default_params();
  params.n_gpu_layers = options.gpu_layers;
  params.use_extra_bufts = false;  // weights as in the file: NOTES.md, "Repacked weights"
  engine_complaint();
  LlamaModelHandle model(llama_model_load_from_file(options.model.c_str(), params));
  if (!model)
    throw InputError(
        fmt::format("{}: the engine cannot load this model, the file may be cut short or of an unknown architecture{}",
                    options.model.string(), engine_complaint()));
  check_supported(model.get(), options.model);
  return model;
}

bool offloads(const LlamaOptions& options) { return options.gpu_layers != 0 && llama_supports_gpu_offload(); }

// Bytes of what holds the cache.
std::int64_t memory_of(const LlamaOptions& options) {
  ggml_backend_dev_t device = offloads(options) ? ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_GPU) : nullptr;
  if (device == nullptr) return machine_memory();
  std::size_t free = 0;
  std::size_t total = 0;
  ggml_backend_dev_memory(device, &free, &total);
  return static_cast<std::int64_t>(total);
}

// Passes over prompt, answer and passages on sequence 0, with or without a look at the layers.
class Recording {
 public:
  Recording(llama_model* model, const ModelCard& card, const SessionOptions& options,
            const Model::RecordRequest& request, const LayerSink& sink)
      : vocab_(llama_model_get_vocab(model)),
        cells_(card),
        workers_(options.threads),
        capture_(card, sink, workers_,
                 {.attention = request.attention,
                  .unrotated = request.unrotated_queries,
                  .cached_keys = request.cached_keys,
                  .on_device = request.on_device,
                  .threads = options.threads}),
        states_(card, request.states, workers_),
        passage_sink_([this, &request](const LayerBlock& block) { request.passage_sink(passage_, block); }),
        passage_capture_(card, passage_sink_, workers_,
                         {.entries = false,
                          .cached_keys = true,
                          .on_device = request.on_device,
                          .input_norms = true,
                          .threads = options.threads}),
        session_(model, options) {}

  // Computes tokens from position first on; every row goes to the sink, its hidden states if they are asked for, too.
  // Returns the greedy next token.
  Token run(std::span<const Token> tokens, std::int64_t first, bool with_states) {
    session_.watch({&cells_, &capture_});
    if (with_states) session_.watch({&cells_, &capture_, &states_});
    return compute(tokens, first, capture_, with_states);
  }

  // Passages behind a prefix of what has been computed; the rest of it is forgotten.
  void feed(std::span<const Passage> passages) {
    session_.watch({&cells_, &passage_capture_});
    for (passage_ = 0; passage_ < passages.size(); ++passage_) {
      session_.rewind(0, passages[passage_].behind);
      compute(passages[passage_].tokens, passages[passage_].behind, passage_capture_, false);
    }
  }

  // Greedy continuation, unwatched and forgotten afterwards: its rows are recorded when the answer is fed as a batch.
  std::vector<Token> generate(Token next, std::int64_t first, std::int64_t max_new) {
    session_.watch({});
    std::vector<Token> answer;
    while (static_cast<std::int64_t>(answer.size()) < max_new) {
      answer.push_back(next);
      if (llama_vocab_is_eog(vocab_, next) || static_cast<std::int64_t>(answer.size()) == max_new) break;
      next = step({&answer.back(), 1}, first + static_cast<std::int64_t>(answer.size()) - 1);
    }
    session_.rewind(0, first);
    return answer;
  }

 private:
  Token compute(std::span<const Token> tokens, std::int64_t first, Capture& capture, bool with_states) {
    Token next = 0;
    for (std::size_t begin = 0; begin < tokens.size(); begin += static_cast<std::size_t>(session_.batch())) {
      const auto chunk =
          tokens.subspan(begin, std::min(tokens.size() - begin, static_cast<std::size_t>(session_.batch())));
      const std::int64_t position = first + static_cast<std::int64_t>(begin);
      const auto rows = static_cast<std::int64_t>(chunk.size());
      cells_.expect(position, rows);
      capture.expect(position, rows, position + rows);
      states_.expect(position, rows);
      next = step(chunk, position, with_states);
      if (with_states) states_.check_complete();
    }
    return next;
  }

  Token step(std::span<const Token> tokens, std::int64_t first, bool every_output = false) {
    std::vector<BatchRow> rows = rows_from(tokens, first);
    // The engine drops rows without an output from the last layer, after its attention.
    for (BatchRow& row : rows) row.logits = row.logits || every_output;
    session_.decode(rows);
    return greedy(session_.logits(tokens.size() - 1));
  }

  const llama_vocab* vocab_;
  CellCheck cells_;
  EngineWorkers workers_;
  Capture capture_;
  States states_;
  std::size_t passage_ = 0;  // at hand
  LayerSink passage_sink_;
  Capture passage_capture_;
  Session session_;
};

}  // namespace

LlamaModel::LlamaModel(const LlamaOptions& options)
    : options_(options),
      model_(load(options)),
      facts_(examine(model_.get(), options.model, options.threads, offloads(options))) {}

// More cells never bring the short factors back, so that a probe settles all contexts on its side.
const ModelCard& LlamaModel::card_for(std::int64_t tokens) {
  if (!facts_.rotation_depends_on_cells || tokens <= short_up_to_) return facts_.card;
  if (long_card_ && tokens >= long_from_) return *long_card_;
  ModelCard found = rotated_at(model_.get(), facts_.card, tokens, options_.threads, offloads(options_));
  if (found == facts_.card) {
    short_up_to_ = tokens;
    return facts_.card;
  }
  long_from_ = tokens;
  return long_card_.emplace(std::move(found));
}

std::vector<Token> LlamaModel::tokenize(std::string_view text, bool with_bos, bool parse_special) const {
  return tokenize_text(llama_model_get_vocab(model_.get()), text, with_bos, parse_special);
}

std::string LlamaModel::detokenize(std::span<const Token> tokens) const {
  return text_of(llama_model_get_vocab(model_.get()), tokens);
}

std::string LlamaModel::chat(std::span<const Message> messages) const { return chat_prompt(model_.get(), messages); }

std::vector<Token> LlamaModel::record(const RecordRequest& request, const LayerSink& sink) {
  const auto prompt = static_cast<std::int64_t>(request.prompt.size());
  const std::int64_t more = request.answer.empty() ? std::max<std::int64_t>(request.max_new, 0)
                                                   : static_cast<std::int64_t>(request.answer.size());
  if (prompt == 0) throw InputError("the prompt has no tokens; give at least one");
  if (prompt + more > facts_.card.context_length)
    throw InputError(fmt::format(
        "a prompt of {} tokens and an answer of up to {} do not fit the context of {}, {} tokens; shorten them", prompt,
        more, facts_.card.name, facts_.card.context_length));
  for (const Passage& passage : request.passages)
    if (passage.behind < 0 || passage.behind > prompt)
      throw Error(fmt::format("a passage was to follow {} tokens of a prompt of {}", passage.behind, prompt));
  if (const std::int64_t end = end_of(request.passages); end > facts_.card.context_length)
    throw InputError(
        fmt::format("a passage behind the prompt's context ends at {} tokens, the context of {} holds {}; "
                    "shorten the prompt, or record without {}",
                    end, facts_.card.name, facts_.card.context_length, to_string(Channel::repeat_max)));
  if (!request.attention.empty() && request.attention.size() != facts_.card.layers.size())
    throw Error(fmt::format("attention was asked of {} layers, {} has {}", request.attention.size(), facts_.card.name,
                            facts_.card.layers.size()));

  const bool states = static_cast<bool>(request.states);
  const std::int64_t cells = std::max(prompt + more, end_of(request.passages));
  const std::int64_t batch = std::min<std::int64_t>(options_.batch, cells);
  const SessionOptions session{
      .cells = cells,
      .batch = batch,
      .outputs = states ? batch : 1,
      .threads = options_.threads,
      .offload = offloads(options_),
      .flash_attention = std::ranges::find(request.attention, true) == request.attention.end()};
  Recording recording(model_.get(), facts_.card, session, request, sink);
  const Token next = recording.run(request.prompt, 0, states);
  std::vector<Token> answer(request.answer.begin(), request.answer.end());
  if (answer.empty()) answer = recording.generate(next, prompt, more);
  recording.run(answer, prompt, false);
  recording.feed(request.passages);
  return answer;
}

Tensor LlamaModel::output_projection(int layer) const {
  const LayerShape& shape = facts_.card.layers.at(static_cast<std::size_t>(layer));
  const ggml_tensor* weights = facts_.output_projections.at(static_cast<std::size_t>(layer));
  if (weights == nullptr)
    throw Error(
        fmt::format("{} shows no output projection in layer {}; record it without value_output_norms and "
                    "output_projection",
                    facts_.card.name, layer));
  std::vector<std::byte> scratch;
  const std::span<const std::byte> bytes = host_bytes(*weights, scratch);  // [D, query heads * d]
  const std::int64_t outputs = weights->ne[1];
  const std::int64_t inputs = weights->ne[0];
  Tensor projection(shape.query_heads, shape.head_dim, outputs);
  // Transposed a few rows at a time, so that what is read stays in the cache until all of it has been.
  constexpr std::int64_t kRows = 16;
  parallel_for((outputs + kRows - 1) / kRows, options_.threads, [&](std::int64_t block) {
    const std::int64_t first = block * kRows;
    const std::int64_t count = std::min(kRows, outputs - first);
    std::vector<float> rows(static_cast<std::size_t>(count * inputs));
    dequantise_rows(*weights, bytes, first, count, rows);
    for (std::int64_t i = 0; i < inputs; ++i) {
      float* column = projection.row(i / shape.head_dim, i % shape.head_dim).data() + first;
      for (std::int64_t j = 0; j < count; ++j) column[j] = rows[static_cast<std::size_t>(j * inputs + i)];
    }
  });
  return projection;
}

std::unique_ptr<Branches> LlamaModel::branch(std::span<const Token> prefix, std::span<const KeepMask> masks,
                                             std::int64_t capacity) {
  return branch_observed(prefix, masks, capacity, {});
}

std::unique_ptr<LlamaBranches> LlamaModel::branch_observed(std::span<const Token> prefix,
                                                           std::span<const KeepMask> masks, std::int64_t capacity,
                                                           LayerSink observer, bool single_cache) {
  LlamaBranches::Options options{.threads = options_.threads,
                                 .batch = options_.batch,
                                 .offload = offloads(options_),
                                 .memory = memory_of(options_),
                                 .observer = std::move(observer),
                                 .single_cache = single_cache};
  return std::make_unique<LlamaBranches>(model_.get(), facts_.card, prefix, masks, capacity, std::move(options));
}

void LlamaModel::prefill(std::span<const Token> prompt, bool flash_attention, Watcher* watcher) {
  const auto tokens = static_cast<std::int64_t>(prompt.size());
  Session session(model_.get(), {.cells = tokens,
                                 .batch = std::min<std::int64_t>(options_.batch, tokens),
                                 .threads = options_.threads,
                                 .offload = offloads(options_),
                                 .flash_attention = flash_attention});
  if (watcher != nullptr) session.watch({watcher});
  for (std::int64_t first = 0; first < tokens; first += session.batch()) {
    const std::int64_t count = std::min(session.batch(), tokens - first);
    session.decode(rows_from(prompt.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count)), first));
  }
}

std::unique_ptr<Model> open_llama_model(const LlamaOptions& options) { return std::make_unique<LlamaModel>(options); }

std::string llama_engine_version() { return fmt::format("llama.cpp {}", llama_version()); }

}  // namespace depthkv
