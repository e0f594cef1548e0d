// SPDX-License-Identifier: Apache-2.0
// The maxima of a repeated context by plain loops over queries and keys.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "depthkv/ops.h"
#include "kernels/half.h"
#include "tracer/repetition.h"

namespace depthkv {

// What one layer computed of one passage.
struct FedRows {
  std::vector<float> queries;  // [row][query head][d]
  std::vector<float> norms;    // [row] of the attention's input
  std::vector<float> keys;     // [position][KV head][d]: of the prompt before the passage, and of the passage
};

// Collects what a model hands out of passages: [passage][layer].
inline PassageSink collect_into(std::vector<std::vector<FedRows>>& all) {
  return [&all](std::size_t passage, const LayerBlock& block) {
    FedRows& rows = all.at(passage).at(static_cast<std::size_t>(block.layer));
    rows.queries.insert(rows.queries.end(), block.data.begin(), block.data.end());
    rows.norms.insert(rows.norms.end(), block.input_norms.begin(), block.input_norms.end());
    rows.keys.clear();
    for (std::int64_t j = 0; j < block.cached_keys.rows; ++j)
      for (std::int64_t g = 0; g < block.cached_keys.heads; ++g)
        for (const std::uint16_t x : block.cached_keys.row(g, j)) rows.keys.push_back(from_half(x));
  };
}

// exp(logit) of a row of the passage on a key, 0 where the window hides it.
inline double weight_by_hand(const FedRows& rows, const LayerShape& shape, const SoftmaxSpec& spec, std::int64_t row,
                             std::int64_t head, std::int64_t position, std::int64_t key) {
  if (key > position || (spec.window > 0 && key <= position - spec.window)) return 0;
  const std::int64_t d = shape.head_dim;
  double dot = 0;
  for (std::int64_t c = 0; c < d; ++c)
    dot += double{rows.queries[static_cast<std::size_t>((row * shape.query_heads + head) * d + c)]} *
           double{rows.keys[static_cast<std::size_t>((key * shape.kv_heads + head / shape.group()) * d + c)]};
  const double logit = spec.scale * dot;
  return std::exp(spec.softcap > 0 ? spec.softcap * std::tanh(logit / spec.softcap) : logit);
}

// [Repeat][query head][position of the prompt] of one layer, as the channel has it.
inline std::vector<double> repeats_by_hand(const ModelCard& card, int layer, const Segments& segments,
                                           const Repetition& repetition, const std::vector<std::vector<FedRows>>& fed) {
  const LayerShape& shape = card.layers[static_cast<std::size_t>(layer)];
  const std::int64_t width = segments.prompt_end;
  std::vector<double> maxima(static_cast<std::size_t>(3 * shape.query_heads * width));
  const auto raise = [&](Repeat repeat, std::int64_t head, std::int64_t key, double value) {
    double& most =
        maxima[static_cast<std::size_t>((static_cast<std::int64_t>(repeat) * shape.query_heads + head) * width + key)];
    most = std::max(most, value);
  };
  for (std::size_t p = 0; p < repetition.passages.size(); ++p) {
    const Span chunk = repetition.chunks[p];
    const std::int64_t behind = repetition.passages[p].behind;
    const FedRows& rows = fed[p][static_cast<std::size_t>(layer)];
    const auto count = static_cast<std::int64_t>(rows.norms.size());
    const std::int64_t asking = count - (chunk.end - chunk.begin);
    SoftmaxSpec whole = softmax_of(card, layer);
    SoftmaxSpec alone = whole;
    alone.window = 0;
    for (std::int64_t row = 0; row < count; ++row) {
      for (std::int64_t head = 0; head < shape.query_heads; ++head) {
        const auto weight = [&](const SoftmaxSpec& spec, std::int64_t key) {
          return weight_by_hand(rows, shape, spec, row, head, behind + row, key);
        };
        double few = 0;
        double all = 0;
        for (std::int64_t key = 0; key <= behind + row; ++key) {
          const bool sink = key < 4 && key < chunk.begin;
          if (sink || (key >= chunk.begin && key < chunk.end) || key >= behind) few += weight(alone, key);
          all += weight(whole, key);
        }
        for (std::int64_t key = chunk.begin; key < chunk.end; ++key) {
          raise(Repeat::chunk, head, key, weight(alone, key) / few);
          raise(Repeat::chunk_per_input, head, key,
                weight(alone, key) / few / double{rows.norms[static_cast<std::size_t>(row)]});
        }
        for (std::int64_t key = 0; row >= asking && key < segments.context.end; ++key)
          raise(Repeat::cache, head, key, weight(whole, key) / all);
      }
    }
  }
  return maxima;
}

}  // namespace depthkv
