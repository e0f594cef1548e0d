// SPDX-License-Identifier: Apache-2.0
#include "tracer/llama/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <thread>
#include <utility>

#include "depthkv/error.h"

namespace depthkv {
namespace {

struct Log {
  std::mutex mutex;
  std::string last_error;
};
Log& engine_log() {
  static Log log;
  return log;
}

void keep_errors(ggml_log_level level, const char* text, void* /*unused*/) noexcept try {
  if (level != GGML_LOG_LEVEL_ERROR || text == nullptr) return;
  std::string line(text);
  while (!line.empty() && (line.back() == '\n' || line.back() == ' ')) line.pop_back();
  if (line.empty()) return;
  const std::lock_guard lock(engine_log().mutex);
  engine_log().last_error = std::move(line);
} catch (...) {  // out of memory while logging: the message is lost, nothing else
}

// llama_batch in the engine's own layout, freed with it.
class Batch {
 public:
  explicit Batch(std::span<const BatchRow> rows)
      : batch_(llama_batch_init(static_cast<std::int32_t>(rows.size()), 0, 1)) {
    batch_.n_tokens = static_cast<std::int32_t>(rows.size());
    for (std::size_t i = 0; i < rows.size(); ++i) {
      batch_.token[i] = rows[i].token;
      batch_.pos[i] = static_cast<llama_pos>(rows[i].position);
      batch_.n_seq_id[i] = 1;
      batch_.seq_id[i][0] = rows[i].sequence;
      batch_.logits[i] = rows[i].logits ? 1 : 0;
    }
  }
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;
  ~Batch() { llama_batch_free(batch_); }
  const llama_batch& get() const { return batch_; }

 private:
  llama_batch batch_;
};

llama_context_params context_params(const SessionOptions& options) {
  llama_context_params params = llama_context_default_params();
  params.n_ctx = static_cast<std::uint32_t>((options.cells + 255) / 256 * 256);
  // One decode is one graph, so that a row of a node is a row of the batch.
  params.n_batch = static_cast<std::uint32_t>(options.batch);
  params.n_ubatch = params.n_batch;
  // The engine asserts, that is aborts, on room for fewer outputs than sequences.
  params.n_outputs_max = static_cast<std::uint32_t>(std::max<std::int64_t>(options.outputs, options.sequences));
  params.n_seq_max = static_cast<std::uint32_t>(options.sequences);
  params.n_threads = options.threads;
  params.n_threads_batch = options.threads;
  params.flash_attn_type = options.flash_attention ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
  params.type_k = params.type_v = options.single_cache ? GGML_TYPE_F32 : GGML_TYPE_F16;
  params.offload_kqv = options.offload;
  params.op_offload = options.offload;
  params.kv_unified = true;
  params.swa_full = true;  // layers with a window keep every position, in the cell of its number like the others
  params.no_perf = true;
  return params;
}

}  // namespace

std::vector<BatchRow> rows_from(std::span<const Token> tokens, std::int64_t first) {
  std::vector<BatchRow> rows;
  for (const Token token : tokens)
    rows.push_back({.token = token, .position = first + static_cast<std::int64_t>(rows.size())});
  if (!rows.empty()) rows.back().logits = true;
  return rows;
}

int thread_count(int asked) {
  return asked > 0 ? asked : static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
}

void* cpu_function(const char* name) {
  ggml_backend_dev_t device = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
  return device == nullptr ? nullptr : ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(device), name);
}

BackendHandle cpu_backend(int threads) {
  BackendHandle backend(ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr));
  if (!backend) throw Error("the engine has no CPU back end; build llama.cpp with one");
  if (const auto set_threads =
          reinterpret_cast<ggml_backend_set_n_threads_t>(cpu_function("ggml_backend_set_n_threads")))
    set_threads(backend.get(), thread_count(threads));
  return backend;
}

void start_engine() {
  static std::once_flag once;
  std::call_once(once, [] {
    llama_log_set(keep_errors, nullptr);
    llama_backend_init();
  });
}

std::string engine_complaint() {
  const std::lock_guard lock(engine_log().mutex);
  std::string line = std::exchange(engine_log().last_error, {});
  return line.empty() ? line : ": the engine says \"" + line + "\"";
}

Session::Session(llama_model* model, const SessionOptions& options)
    : options_(options), vocabulary_(static_cast<std::size_t>(llama_vocab_n_tokens(llama_model_get_vocab(model)))) {
  options_.threads = thread_count(options_.threads);
  if (static_cast<std::size_t>(options_.sequences) > llama_max_parallel_sequences())
    throw Error(
        fmt::format("{} sequences were asked for, the engine can hold at most {}; verify fewer policies at once",
                    options_.sequences, llama_max_parallel_sequences()));
  llama_context_params params = context_params(options_);
  params.cb_eval = on_node;
  params.cb_eval_user_data = this;
  engine_complaint();
  context_.reset(llama_init_from_model(model, params));
  if (!context_)
    throw Error(fmt::format("the engine could not make a context of {} tokens{}", params.n_ctx, engine_complaint()));
}

void Session::decode(std::span<const BatchRow> rows) {
  if (rows.empty()) return;
  if (static_cast<std::int64_t>(rows.size()) > options_.batch)
    throw Error(fmt::format("a batch of {} tokens was given to a session for {}", rows.size(), options_.batch));
  for (const BatchRow& row : rows)
    if (row.token < 0 || static_cast<std::size_t>(row.token) >= vocabulary_)
      throw InputError(
          fmt::format("token {} is outside the model's vocabulary of {}; was it made by another model's tokenizer?",
                      row.token, vocabulary_));
  error_ = nullptr;
  engine_complaint();
  const Batch batch(rows);
  const std::int32_t status = llama_decode(context_.get(), batch.get());
  // A callback that stops early still counts as success for the engine, so what it threw comes first.
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  if (status != 0)
    throw Error(fmt::format("the engine failed to evaluate {} tokens from position {} with status {}{}", rows.size(),
                            rows.front().position, status, engine_complaint()));
  llama_synchronize(context_.get());
}

std::span<const float> Session::logits(std::size_t row) const {
  const float* data = llama_get_logits_ith(context_.get(), static_cast<std::int32_t>(row));
  if (data == nullptr) throw Error(fmt::format("the engine has no logits for row {} of the last batch", row));
  return {data, vocabulary_};
}

void Session::copy_sequence(int from, int to) {
  llama_memory_seq_cp(llama_get_memory(context_.get()), from, to, -1, -1);
}

void Session::rewind(int sequence, std::int64_t first) {
  if (!llama_memory_seq_rm(llama_get_memory(context_.get()), sequence, static_cast<llama_pos>(first), -1))
    throw Error(fmt::format(
        "the engine cannot drop positions from {} on; its cache is of a kind that DepthKV does not support", first));
}

bool Session::shift(int sequence, std::int64_t first, std::int64_t by) {
  llama_memory_t memory = llama_get_memory(context_.get());
  if (!llama_memory_can_shift(memory)) return false;
  llama_memory_seq_add(memory, sequence, static_cast<llama_pos>(first), -1, static_cast<llama_pos>(by));
  return true;
}

bool Session::on_node(ggml_tensor* node, bool ask, void* self) noexcept {
  Session& session = *static_cast<Session*>(self);
  if (session.error_) return false;
  try {
    return session.see(*node, ask);
  } catch (...) {
    session.error_ = std::current_exception();
    return false;
  }
}

bool Session::see(ggml_tensor& node, bool ask) {
  if (!ask) {
    for (Watcher* watcher : takers_) watcher->take(node);
    return true;
  }
  takers_.clear();
  for (Watcher* watcher : watchers_)
    if (watcher->wants(node)) takers_.push_back(watcher);
  return !takers_.empty();
}

}  // namespace depthkv
