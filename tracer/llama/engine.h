// SPDX-License-Identifier: Apache-2.0
// Thin checked layer over the engine's C API: handles that free themselves, its log kept instead of printed, and one
// way to evaluate a batch.
#pragma once
#include <ggml-backend.h>
#include <llama.h>

#include <cstdint>
#include <exception>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "depthkv/trace.h"

namespace depthkv {

struct LlamaDelete {
  void operator()(llama_model* model) const { llama_model_free(model); }
  void operator()(llama_context* context) const { llama_free(context); }
};
using LlamaModelHandle = std::unique_ptr<llama_model, LlamaDelete>;
using LlamaContextHandle = std::unique_ptr<llama_context, LlamaDelete>;

// 0 means one per core.
int thread_count(int asked);

// A function that the engine's CPU back end offers by name, or null.
void* cpu_function(const char* name);

struct BackendDelete {
  void operator()(ggml_backend_t backend) const { ggml_backend_free(backend); }
};
using BackendHandle = std::unique_ptr<ggml_backend, BackendDelete>;
// The engine's CPU back end, for computing something beside the model. Throws Error if there is none.
BackendHandle cpu_backend(int threads);

// Starts the engine once per process and sends its log to a buffer.
void start_engine();
// ": the engine says ..." with its last error since the previous call, or "".
std::string engine_complaint();

// Sees the nodes of a graph as they are computed. Both may throw; Session::decode re-throws.
class Watcher {
 public:
  virtual ~Watcher() = default;
  // Every node, in order, before it runs. Yes costs a synchronisation.
  virtual bool wants(const ggml_tensor& node) = 0;
  // A wanted node, just computed: it and its sources still hold their data.
  virtual void take(ggml_tensor& node) = 0;
};

// One token of a batch.
struct BatchRow {
  Token token = 0;
  std::int64_t position = 0;
  int sequence = 0;
  bool logits = false;
};

// Rows of sequence 0 at the positions from `first` on, with logits of the last.
std::vector<BatchRow> rows_from(std::span<const Token> tokens, std::int64_t first);

struct SessionOptions {
  std::int64_t cells = 0;    // capacity of the cache, shared by all sequences
  std::int64_t batch = 0;    // most rows per decode; each decode is one graph
  std::int64_t outputs = 1;  // most rows with logits per decode
  int sequences = 1;
  int threads = 0;
  bool offload = false;
  bool flash_attention = false;  // then neither logits nor softmax exist as nodes
  bool single_cache = false;     // keys and values in single precision, else in half
};

// A context with one cache. Not thread-safe.
class Session {
 public:
  Session(llama_model* model, const SessionOptions& options);
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // The watchers of the following decodes, called in this order.
  void watch(std::vector<Watcher*> watchers) { watchers_ = std::move(watchers); }
  void decode(std::span<const BatchRow> rows);
  // Logits of a row of the last decode; valid until the next.
  std::span<const float> logits(std::size_t row) const;
  void copy_sequence(int from, int to);
  // Forgets the positions of a sequence from `first` on.
  void rewind(int sequence, std::int64_t first);
  // Moves the positions of a sequence from `first` on by `by`; false if the engine can't.
  bool shift(int sequence, std::int64_t first, std::int64_t by);
  std::int64_t batch() const { return options_.batch; }

 private:
  static bool on_node(ggml_tensor* node, bool ask, void* self) noexcept;
  bool see(ggml_tensor& node, bool ask);

  SessionOptions options_;
  std::size_t vocabulary_ = 0;
  std::vector<Watcher*> watchers_;
  std::vector<Watcher*> takers_;  // those that want the node in flight
  std::exception_ptr error_;
  LlamaContextHandle context_;
};

}  // namespace depthkv
