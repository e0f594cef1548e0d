// SPDX-License-Identifier: Apache-2.0
// Hands keys, values, queries and attention rows of every layer to a sink while the engine computes them.
#pragma once
#include <optional>
#include <set>
#include <vector>

#include "depthkv/model.h"
#include "tracer/llama/engine.h"
#include "tracer/llama/rotation.h"
#include "tracer/llama/workers.h"

namespace depthkv {

// Keys and values are read back from the cache, as every later token reads them (half precision). The operation that
// reads cached keys and queries comes after the cache was written, so one stop per layer gives keys, values and
// queries.
class Capture : public Watcher {
 public:
  struct Wanted {
    bool entries = true;  // keys and values
    bool queries = true;
    std::vector<bool> attention = {};  // per layer; empty: none
    bool unrotated = false;            // queries before rotation, too
    bool cached_keys = false;          // all keys so far beside the queries
    bool on_device = false;            // as views of the engine's own memory where ops can read it there
    bool input_norms = false;          // of what the queries are projections of, beside them
    int threads = 0;                   // for what happens between two of the engine's operations
  };
  // `workers`: for what the sink does.
  Capture(const ModelCard& card, const LayerSink& sink, EngineWorkers& workers, Wanted wanted);

  // The positions that the next decode computes: one sequence, in cells [first, first + rows).
  void expect(std::int64_t first, std::int64_t rows, std::int64_t width);

  bool wants(const ggml_tensor& node) override;
  void take(ggml_tensor& node) override;

 private:
  void take_inputs(const ggml_tensor& inputs);
  void take_keys(const ggml_tensor& cache, int layer);
  void take_values(int layer);
  void take_queries(const ggml_tensor& queries, const ggml_tensor& key_cache, int layer);
  std::span<const float> unrotated(const ggml_tensor& queries, int layer);
  void take_attention(const ggml_tensor& softmax, int layer);
  void deliver(Channel channel, int layer);

  const LayerShape& shape(int layer) const;
  std::int64_t check_row(const ggml_tensor& cache, std::int64_t found, int layer) const;
  HalfRows cached_keys(const ggml_tensor& cache, int layer);
  std::optional<DeviceRows> on_device(const ggml_tensor& queries, const ggml_tensor& cache, int layer) const;

  const ModelCard& card_;
  const LayerSink& sink_;
  Wanted wanted_;
  std::int64_t first_ = 0;
  std::int64_t rows_ = 0;
  std::int64_t width_ = 0;
  std::vector<const ggml_tensor*> value_stores_;  // per layer: the node that writes the value cache
  EngineWorkers& workers_;
  std::optional<Unrotation> unrotation_;
  std::vector<float> input_norms_;  // of the layer at hand
  std::vector<float> block_;
  std::vector<std::byte> scratch_;
  std::vector<std::uint16_t> half_;
  std::vector<std::uint16_t> keys_;
};

// Throws Error unless the node writes rows to the cells [first, first + rows) of the key cache. Pruned positions are
// masked, and keys read back, by cell.
void check_cells(const ggml_tensor& key_store, std::int64_t first, std::int64_t rows);

// check_cells in every decode, on the first layer and on the first of those with (or without) a sliding window: the
// engine keeps two caches then.
class CellCheck : public Watcher {
 public:
  explicit CellCheck(const ModelCard& card);
  void expect(std::int64_t first, std::int64_t rows) { first_ = first, rows_ = rows; }
  bool wants(const ggml_tensor& node) override;
  void take(ggml_tensor& node) override { check_cells(node, first_, rows_); }

 private:
  std::set<int> layers_;
  std::int64_t first_ = 0;
  std::int64_t rows_ = 0;
};

}  // namespace depthkv
