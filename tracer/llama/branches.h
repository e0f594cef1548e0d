// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "depthkv/model.h"
#include "tracer/llama/capture.h"
#include "tracer/llama/engine.h"
#include "tracer/llama/mask.h"

namespace depthkv {

// Sequence 0 holds the prefix. Sequences from 1 on are slots, each of which takes one branch after the other; all share
// the prefix's cells of one cache.
class LlamaBranches : public Branches {
 public:
  struct Options {
    int threads = 0;
    int batch = 512;
    bool offload = false;
    std::int64_t memory = 0;  // bytes of the device that holds the cache
    // For tests: sees the attention rows of every layer as branches are decoded, before the next layer runs. The width
    // of a block is the prefix.
    LayerSink observer = {};
    bool single_cache = false;  // for tests: nothing is rounded to half precision
  };
  LlamaBranches(llama_model* model, const ModelCard& card, std::span<const Token> prefix,
                std::span<const KeepMask> masks, std::int64_t capacity, Options options);

  void score(std::span<const Token> tokens, std::int64_t first_visited, const Visit& visit) override;
  std::vector<std::vector<Token>> generate(std::span<const Token> lead, std::int64_t max_tokens,
                                           std::size_t count) override;

 private:
  class Rewind;
  void prefill(std::span<const Token> prefix);
  void decode(std::span<const BatchRow> rows, const std::vector<std::uint32_t>& branches);
  HiddenSets hidden_from(std::span<const BatchRow> rows, const KeepMask& mask) const;
  void feed(std::size_t branch, int sequence, std::span<const Token> tokens, std::int64_t first_visited,
            const Visit& visit);
  void decode_greedily(std::size_t first, std::size_t count, std::span<const Token> lead, std::int64_t max_tokens,
                       std::vector<std::vector<Token>>& answers);
  std::size_t together_from(std::size_t first, std::size_t count) const;
  void watch(bool one_branch);
  void check_room(std::size_t tokens) const;

  const llama_vocab* vocab_;
  ModelCard card_;
  Options options_;
  std::size_t branches_;
  std::int64_t prefix_;
  std::int64_t capacity_;
  BranchRoom room_;
  std::vector<float> prefix_logits_;
  Mask mask_;
  std::map<std::size_t, KeepMask> changing_;  // masks that do, by branch; fed alone, so that cells are positions
  CellCheck cells_;
  EngineWorkers workers_;
  std::optional<Capture> observer_;
  Session session_;
};

}  // namespace depthkv
