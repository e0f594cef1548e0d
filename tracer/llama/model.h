// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <optional>

#include "depthkv/model.h"
#include "tracer/llama/branches.h"
#include "tracer/llama/card.h"
#include "tracer/llama/engine.h"

namespace depthkv {

class LlamaModel : public Model {
 public:
  explicit LlamaModel(const LlamaOptions& options);

  const ModelCard& card() const override { return facts_.card; }
  const ModelCard& card_for(std::int64_t tokens) override;
  std::vector<Token> tokenize(std::string_view text, bool with_bos, bool parse_special) const override;
  std::string detokenize(std::span<const Token> tokens) const override;
  std::string chat(std::span<const Message> messages) const override;
  std::vector<Token> record(const RecordRequest& request, const LayerSink& sink) override;
  Tensor output_projection(int layer) const override;
  std::unique_ptr<Branches> branch(std::span<const Token> prefix, std::span<const KeepMask> masks,
                                   std::int64_t capacity) override;
  // For tests: branch(), with a look at the attention of the branches, or a cache in single precision; see
  // LlamaBranches::Options.
  std::unique_ptr<LlamaBranches> branch_observed(std::span<const Token> prefix, std::span<const KeepMask> masks,
                                                 std::int64_t capacity, LayerSink observer, bool single_cache = false);
  // For benchmarks: computes a prompt and nothing else, with somebody watching or not.
  void prefill(std::span<const Token> prompt, bool flash_attention, Watcher* watcher = nullptr);

 private:
  LlamaOptions options_;
  LlamaModelHandle model_;
  ModelFacts facts_;
  std::optional<ModelCard> long_card_;  // with another rotation, from some number of tokens on
  std::int64_t short_up_to_ = 0;        // tokens
  std::int64_t long_from_ = 0;
};

}  // namespace depthkv
