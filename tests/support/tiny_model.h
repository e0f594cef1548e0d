// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <vector>

#include "depthkv/model.h"

namespace depthkv {

struct TinyModelOptions {
  std::uint64_t seed = 1;
  int layers = 2;
  int query_heads = 4;
  int kv_heads = 2;
  int head_dim = 8;
  int batch = 48;                           // rows handed to the sink at once
  std::vector<double> attention_gain = {};  // of each layer's output projection; empty: 1
};

// A transformer with random weights in plain loops: RMS norm, rotary attention with grouped heads, an MLP, bytes as
// tokens. The engine-free truth that the loop is tested against; keys, values and queries are rounded to half
// precision, so traces hold them exactly.
class TinyModel : public Model {
 public:
  explicit TinyModel(const TinyModelOptions& options = {});
  ~TinyModel() override;

  const ModelCard& card() const override;
  std::vector<Token> tokenize(std::string_view text, bool with_bos, bool parse_special) const override;
  std::string detokenize(std::span<const Token> tokens) const override;
  std::string chat(std::span<const Message> messages) const override;
  std::vector<Token> record(const RecordRequest& request, const LayerSink& sink) override;
  Tensor output_projection(int layer) const override;
  std::unique_ptr<Branches> branch(std::span<const Token> prefix, std::span<const KeepMask> masks,
                                   std::int64_t capacity) override;

  struct Weights;
  struct State;

 private:
  void feed_passage(State& state, const Passage& passage, const LayerSink& sink) const;
  TinyModelOptions options_;
  std::shared_ptr<const Weights> weights_;
};

}  // namespace depthkv
