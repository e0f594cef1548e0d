// SPDX-License-Identifier: Apache-2.0
// What record() delivered, put together per layer.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "depthkv/model.h"
#include "support/branch_logits.h"

namespace depthkv {

struct RecordedLayer {
  std::vector<float> keys;                                 // [position, KV heads, d]
  std::vector<float> values;                               // [position, KV heads, d]
  std::vector<float> queries;                              // [position, query heads, d]
  std::vector<float> unrotated;                            // queries before rotation
  std::vector<std::vector<std::vector<float>>> attention;  // [position][query head][key]
  std::vector<std::uint16_t> cached_keys;                  // that came with the last block of queries
};

struct Recorded {
  ModelCard card;
  std::vector<Token> answer;
  std::vector<RecordedLayer> layers;
};

// Records and fails the test on a block that is out of order, doubled or of the wrong size. Without attention, the
// engine uses flash attention.
Recorded record_all(Model& model, std::span<const Token> prompt, std::span<const Token> answer, std::int64_t max_new,
                    std::vector<bool> attention);

// Softmax rows of one query head recomputed from queries and keys in double: [position][key].
std::vector<std::vector<double>> recompute_attention(const Recorded& recorded, int layer, int head);

std::vector<Token> random_tokens(std::size_t count, const ModelCard& card, std::uint32_t seed);

// The text as the user's only message, inside the model's chat template.
std::string ask(const Model& model, const std::string& text);

// The model named by DEPTHKV_MODEL. Throws if it is unset.
std::unique_ptr<Model> open_real_model(int batch);

}  // namespace depthkv
