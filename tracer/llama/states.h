// SPDX-License-Identifier: Apache-2.0
// Hands the hidden states of every layer to a sink while the engine computes them.
#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "depthkv/model.h"
#include "tracer/llama/engine.h"
#include "tracer/llama/workers.h"

namespace depthkv {

// Follows the residual stream through the graph by what each node reads: from the layer's input x (under the norm that
// the query's product reads) to the product with W_O and what is done to it (att), their sum (res), and the sum of that
// with the FFN's output (mlp). A sum may overwrite what it adds up, so att and mlp are copied whenever they have been
// computed, and handed over when the node that reads them shows that they were final. Throws InputError where the graph
// looks different.
class States : public Watcher {
 public:
  // `workers`: for what the sink does.
  States(const ModelCard& card, const StateSink& sink, EngineWorkers& workers);

  // The rows that the next decode computes; each needs an output, or the last layer drops it.
  void expect(std::int64_t first, std::int64_t rows);
  // After a decode: throws unless all stages of all layers have been handed over.
  void check_complete() const;

  bool wants(const ggml_tensor& node) override;
  void take(ggml_tensor& node) override;

 private:
  // A part of the stream in the making: the last node of it so far, and its rows.
  struct Part {
    const ggml_tensor* node = nullptr;
    std::vector<float> rows;
  };

  void start_layer(const ggml_tensor& product, int layer);
  bool continues(const ggml_tensor& node, const Part& part, bool norms) const;
  bool adds(const ggml_tensor& node, const ggml_tensor* one) const;
  std::span<const float> rows_of(const ggml_tensor& node);
  void deliver(Stage stage, int layer, std::span<const float> rows) const;
  void confirm(const ggml_tensor* read, std::string_view reader);
  [[noreturn]] void refuse(std::string_view reader, const ggml_tensor* read, std::string_view expected) const;

  const ModelCard& card_;
  const StateSink& sink_;
  EngineWorkers& workers_;
  std::int64_t first_ = 0;
  std::int64_t rows_ = 0;
  int layer_ = -1;
  const ggml_tensor* queries_ = nullptr;   // the product that starts the layer
  const ggml_tensor* input_ = nullptr;     // x
  Part attention_;                         // att
  const ggml_tensor* residual_ = nullptr;  // res
  bool feeds_forward_ = false;             // the first product of the FFN has been seen
  Part output_;                            // mlp
  bool complete_ = false;
  std::vector<std::byte> scratch_;
};

}  // namespace depthkv
