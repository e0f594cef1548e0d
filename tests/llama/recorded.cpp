// SPDX-License-Identifier: Apache-2.0
#include "llama/recorded.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <random>
#include <stdexcept>
#include <utility>

namespace depthkv {
namespace {

void add(RecordedLayer& layer, const LayerShape& shape, const LayerBlock& block) {
  const auto rows = static_cast<std::size_t>(block.rows);
  const auto width = static_cast<std::size_t>(block.width);
  if (block.channel == Channel::attention) {
    ASSERT_EQ(block.data.size(), rows * width * static_cast<std::size_t>(shape.query_heads));
    ASSERT_GE(block.width, block.first + block.rows);
    for (std::size_t row = 0; row < rows; ++row) {
      auto& heads = layer.attention.emplace_back();
      for (std::size_t head = 0; head < static_cast<std::size_t>(shape.query_heads); ++head) {
        const auto line = block.data.subspan((head * rows + row) * width, width);
        heads.emplace_back(line.begin(), line.end());
      }
    }
    return;
  }
  const bool queries = block.channel == Channel::queries;
  const int heads = queries ? shape.query_heads : shape.kv_heads;
  ASSERT_EQ(block.data.size(), rows * static_cast<std::size_t>(heads * shape.head_dim));
  auto& all = queries ? layer.queries : block.channel == Channel::keys ? layer.keys : layer.values;
  all.insert(all.end(), block.data.begin(), block.data.end());
  if (queries) {
    layer.cached_keys.clear();
    for (std::int64_t j = 0; j < block.cached_keys.rows; ++j)
      for (int g = 0; g < shape.kv_heads; ++g) {
        const auto key = block.cached_keys.row(g, j);
        layer.cached_keys.insert(layer.cached_keys.end(), key.begin(), key.end());
      }
  }
  layer.unrotated.insert(layer.unrotated.end(), block.unrotated.begin(), block.unrotated.end());
}

}  // namespace

Recorded record_all(Model& model, std::span<const Token> prompt, std::span<const Token> answer, std::int64_t max_new,
                    std::vector<bool> attention) {
  Recorded recorded{model.card(), {}, std::vector<RecordedLayer>(model.card().layers.size())};
  std::map<std::pair<int, Channel>, std::int64_t> next;
  const LayerSink sink = [&](const LayerBlock& block) {
    std::int64_t& expected = next[{block.layer, block.channel}];
    EXPECT_EQ(block.first, expected) << "layer " << block.layer << ' ' << static_cast<int>(block.channel);
    expected = block.first + block.rows;
    const auto layer = static_cast<std::size_t>(block.layer);
    add(recorded.layers.at(layer), recorded.card.layers.at(layer), block);
  };
  recorded.answer = model.record({prompt, answer, max_new, attention, true, true}, sink);
  const auto total = static_cast<std::int64_t>(prompt.size() + recorded.answer.size());
  for (int layer = 0; layer < static_cast<int>(recorded.layers.size()); ++layer) {
    for (const Channel channel : {Channel::keys, Channel::values, Channel::queries})
      EXPECT_EQ((next[{layer, channel}]), total) << "layer " << layer << ' ' << static_cast<int>(channel);
    const bool wanted = !attention.empty() && attention[static_cast<std::size_t>(layer)];
    EXPECT_EQ((next[{layer, Channel::attention}]), wanted ? total : 0) << "layer " << layer;
  }
  return recorded;
}

std::vector<std::vector<double>> recompute_attention(const Recorded& recorded, int layer, int head) {
  const LayerShape shape = recorded.card.layers[static_cast<std::size_t>(layer)];
  const RecordedLayer& data = recorded.layers[static_cast<std::size_t>(layer)];
  const auto d = static_cast<std::size_t>(shape.head_dim);
  const auto query_row = static_cast<std::size_t>(shape.query_heads) * d;
  const auto key_row = static_cast<std::size_t>(shape.kv_heads) * d;
  std::vector<std::vector<double>> rows(data.queries.size() / query_row);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const float* q = data.queries.data() + i * query_row + static_cast<std::size_t>(head) * d;
    const auto window = static_cast<std::size_t>(shape.window);
    const std::size_t first = window > 0 && i >= window ? i + 1 - window : 0;
    rows[i].assign(first, -INFINITY);
    for (std::size_t j = first; j <= i; ++j) {
      const float* k = data.keys.data() + j * key_row + static_cast<std::size_t>(head / shape.group()) * d;
      double dot = 0;
      for (std::size_t x = 0; x < d; ++x) dot += double{q[x]} * double{k[x]};
      const double logit = dot * recorded.card.attention_scale;
      const double cap = recorded.card.logit_softcap;
      rows[i].push_back(cap > 0 ? cap * std::tanh(logit / cap) : logit);
    }
    const double top = *std::ranges::max_element(rows[i]);
    double sum = 0;
    for (double& logit : rows[i]) sum += logit = std::exp(logit - top);
    for (double& weight : rows[i]) weight /= sum;
  }
  return rows;
}

std::vector<Token> random_tokens(std::size_t count, const ModelCard& card, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<Token> draw(0, static_cast<Token>(card.vocabulary - 1));
  std::vector<Token> tokens(count);
  for (Token& token : tokens) token = draw(random);
  return tokens;
}

std::string ask(const Model& model, const std::string& text) {
  const Message message{"user", text};
  return model.chat({&message, 1});
}

std::unique_ptr<Model> open_real_model(int batch) {
  const char* file = std::getenv("DEPTHKV_MODEL");
  if (file == nullptr)
    throw std::runtime_error("DEPTHKV_MODEL is unset: run scripts/setup, then source scripts/env.sh");
  return open_llama_model(
      {.model = file, .threads = 1, .batch = batch});  // the engine's threads spin when cores are shared
}

}  // namespace depthkv
