// SPDX-License-Identifier: Apache-2.0
// Hidden states from inside the engine are what plain loops over the file's weights give, layer by layer, on every
// architecture.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "depthkv/error.h"
#include "llama/recorded.h"
#include "llama/tiny_gguf.h"
#include "support/scratch.h"

namespace depthkv {
namespace {

using States = std::vector<float>;  // [position, D]

struct SeenStates {
  std::map<std::pair<int, Stage>, States> states;
  std::vector<Token> answer;

  const States& at(int layer, Stage stage) const { return states.at({layer, stage}); }
  // What the layer's input norm reads.
  const States& input(int layer) const { return at(layer - 1, Stage::mlp); }
};

SeenStates record_states(
    Model& model, std::span<const Token> prompt, std::int64_t max_new, const LayerSink& sink = [](const LayerBlock&) {},
    bool attention = false) {
  SeenStates seen;
  const auto width = static_cast<std::size_t>(model.card().embedding);
  Model::RecordRequest request;
  request.prompt = prompt;
  request.max_new = max_new;
  request.attention.assign(model.card().layers.size(), attention);
  request.states = [&](const StateBlock& block) {
    States& rows = seen.states[{block.layer, block.stage}];
    EXPECT_EQ(static_cast<std::size_t>(block.first) * width, rows.size()) << block.layer << to_string(block.stage);
    EXPECT_EQ(static_cast<std::size_t>(block.rows) * width, block.data.size());
    rows.insert(rows.end(), block.data.begin(), block.data.end());
  };
  seen.answer = model.record(request, sink);
  EXPECT_EQ(seen.states.size(), 1 + model.card().layers.size() * kStages.size());
  for (const auto& [key, rows] : seen.states) EXPECT_EQ(rows.size(), prompt.size() * width);
  return seen;
}

class TinyStates : public testing::TestWithParam<TinyGguf> {
 protected:
  std::unique_ptr<Model> open(int batch) {
    write_tiny_gguf(GetParam(), folder_ / "m.gguf");
    return open_llama_model({.model = folder_ / "m.gguf", .threads = 2, .batch = batch});
  }
  std::vector<double> weights(int layer, const std::string& name) const {
    const auto values = read_tensor(folder_ / "m.gguf", "blk." + std::to_string(layer) + "." + name + ".weight");
    return {values.begin(), values.end()};
  }
  std::vector<double> row(const States& rows, std::size_t position) const {
    const auto first = rows.begin() + static_cast<std::ptrdiff_t>(position * width());
    return {first, first + static_cast<std::ptrdiff_t>(width())};
  }
  std::size_t width() const { return static_cast<std::size_t>(GetParam().embedding); }
  // Gemma 2 and 3 have norms behind attention and FFN, too.
  bool norms_behind() const { return GetParam().architecture == "gemma2" || GetParam().architecture == "gemma3"; }
  std::vector<double> normalised(const std::vector<double>& x, const std::vector<double>& gain) const {
    double square = 0;
    for (const double value : x) square += value * value;
    const double shrink = 1 / std::sqrt(square / static_cast<double>(x.size()) + 1e-5);
    std::vector<double> y;
    for (std::size_t i = 0; i < x.size(); ++i) y.push_back(x[i] * shrink * gain[i]);
    return y;
  }
  static std::vector<double> times(const std::vector<double>& matrix, const std::vector<double>& x) {
    std::vector<double> y(matrix.size() / x.size());
    for (std::size_t i = 0; i < y.size(); ++i)
      for (std::size_t j = 0; j < x.size(); ++j) y[i] += matrix[i * x.size() + j] * x[j];
    return y;
  }
  std::vector<double> feed_forward(int layer, const std::vector<double>& x) const {
    const auto in = normalised(x, weights(layer, "ffn_norm"));
    auto up = times(weights(layer, "ffn_up"), in);
    auto gate = GetParam().architecture == "phi3" ? up : times(weights(layer, "ffn_gate"), in);
    if (GetParam().architecture == "phi3") {  // the gate's rows are the first half
      gate.resize(up.size() / 2);
      up.erase(up.begin(), up.begin() + static_cast<std::ptrdiff_t>(gate.size()));
    }
    for (std::size_t i = 0; i < up.size(); ++i) {
      const double g = gate[i];
      const double gelu = 0.5 * g * (1 + std::tanh(std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g)));
      up[i] *= GetParam().gemma() ? gelu : g / (1 + std::exp(-g));
    }
    const auto out = times(weights(layer, "ffn_down"), up);
    return norms_behind() ? normalised(out, weights(layer, "post_ffw_norm")) : out;
  }
  static void expect_near(const std::vector<double>& found, const std::vector<double>& expected, double tolerance,
                          const std::string& what) {
    ASSERT_EQ(found.size(), expected.size());
    for (std::size_t i = 0; i < found.size(); ++i)
      ASSERT_NEAR(found[i], expected[i], tolerance * (1 + std::abs(expected[i]))) << what << " dimension " << i;
  }

  ScratchDirectory folder_;
};
INSTANTIATE_TEST_SUITE_P(Architectures, TinyStates,
                         testing::Values(tiny_llama(), tiny_qwen2(), tiny_qwen3(), tiny_gemma(), tiny_gemma2(),
                                         tiny_gemma3(), tiny_mistral3(), tiny_phi3()),
                         [](const auto& test) { return test.param.architecture; });

TEST_P(TinyStates, StartFromTheEmbeddings) {
  const auto model = open(16);
  const auto prompt = random_tokens(37, model->card(), 21);
  const SeenStates seen = record_states(*model, prompt, 0);
  const auto embeddings = read_tensor(folder_ / "m.gguf", "token_embd.weight");
  const float gain = GetParam().gemma() ? std::sqrt(static_cast<float>(width())) : 1;
  for (std::size_t t = 0; t < prompt.size(); ++t)
    for (std::size_t i = 0; i < width(); ++i)
      ASSERT_FLOAT_EQ(seen.input(0)[t * width() + i],
                      gain * embeddings[static_cast<std::size_t>(prompt[t]) * width() + i]);
}

TEST_P(TinyStates, FollowFromEachOtherByTheWeights) {
  const auto model = open(16);
  const auto prompt = random_tokens(37, model->card(), 22);
  const SeenStates seen = record_states(*model, prompt, 3);
  for (int layer = 0; layer < GetParam().layers; ++layer) {
    for (std::size_t t = 0; t < prompt.size(); ++t) {
      const std::string what = "layer " + std::to_string(layer) + " position " + std::to_string(t);
      const auto x = row(seen.input(layer), t);
      expect_near(row(seen.at(layer, Stage::pre), t), normalised(x, weights(layer, "attn_norm")), 1e-5, what + " pre");
      const auto res = row(seen.at(layer, Stage::res), t);
      auto sum = row(seen.at(layer, Stage::att), t);
      for (std::size_t i = 0; i < sum.size(); ++i) sum[i] = static_cast<float>(sum[i] + x[i]);
      ASSERT_EQ(res, sum) << what << " res";
      auto mlp = feed_forward(layer, res);
      for (std::size_t i = 0; i < mlp.size(); ++i) mlp[i] += res[i];
      expect_near(row(seen.at(layer, Stage::mlp), t), mlp, 5e-3, what + " mlp");  // the engine tabulates gelu in f16
    }
  }
}

// The engine's softmax rows times the cached values, through W_O.
TEST_P(TinyStates, AttentionOutputIsThatOfRecordedRowsAndValues) {
  const auto model = open(64);
  const auto prompt = random_tokens(40, model->card(), 23);
  std::map<int, std::vector<float>> values, attention;  // [position, KV heads, d], [query heads, row, width]
  std::int64_t columns = 0;
  const LayerSink sink = [&](const LayerBlock& block) {
    if (block.channel == Channel::values) values[block.layer].assign(block.data.begin(), block.data.end());
    if (block.channel != Channel::attention) return;
    attention[block.layer].assign(block.data.begin(), block.data.end());
    columns = block.width;
  };
  const SeenStates seen = record_states(*model, prompt, 0, sink, true);
  const TinyGguf& tiny = GetParam();
  const auto d = static_cast<std::size_t>(tiny.head_dim);
  for (int layer = 0; layer < tiny.layers; ++layer) {
    for (std::size_t t = 0; t < prompt.size(); ++t) {
      std::vector<double> heads(static_cast<std::size_t>(tiny.query_heads) * d);
      for (std::size_t i = 0; i < heads.size(); ++i) {
        const std::size_t head = i / d;
        const std::size_t kv =
            head * static_cast<std::size_t>(tiny.kv_heads) / static_cast<std::size_t>(tiny.query_heads);
        for (std::size_t j = 0; j <= t; ++j)
          heads[i] += double{attention[layer][(head * prompt.size() + t) * static_cast<std::size_t>(columns) + j]} *
                      double{values[layer][(j * static_cast<std::size_t>(tiny.kv_heads) + kv) * d + i % d]};
      }
      auto out = times(weights(layer, "attn_output"), heads);
      if (norms_behind()) out = normalised(out, weights(layer, "post_attention_norm"));
      expect_near(row(seen.at(layer, Stage::att), t), out, 5e-3,
                  "layer " + std::to_string(layer) + " position " + std::to_string(t));
    }
  }
}

TEST_P(TinyStates, ChangeNothingElse) {
  const auto model = open(16);
  const auto prompt = random_tokens(37, model->card(), 24);
  const Recorded without = record_all(*model, prompt, {}, 6, {});
  std::map<int, std::vector<float>> keys;
  const SeenStates seen = record_states(*model, prompt, 6, [&](const LayerBlock& block) {
    if (block.channel == Channel::keys)
      keys[block.layer].insert(keys[block.layer].end(), block.data.begin(), block.data.end());
  });
  EXPECT_EQ(seen.answer, without.answer);
  for (int layer = 0; layer < GetParam().layers; ++layer)
    EXPECT_EQ(keys[layer], without.layers[static_cast<std::size_t>(layer)].keys);
}

TEST(States, AnArchitectureWithoutTheStagesIsRefusedByName) {
  const ScratchDirectory folder;
  write_tiny_gguf(tiny_command_r(), folder / "m.gguf");
  const auto model = open_llama_model({.model = folder / "m.gguf", .threads = 1});
  const auto prompt = random_tokens(5, model->card(), 1);
  EXPECT_EQ(record_all(*model, prompt, {}, 2, {}).answer.size(), 2U);
  Model::RecordRequest request;
  request.prompt = prompt;
  request.states = [](const StateBlock&) {};
  try {
    model->record(request, [](const LayerBlock&) {});
    FAIL() << "states of parallel layers";
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(), testing::AllOf(testing::HasSubstr("command-r"), testing::HasSubstr("the FFN reads"),
                                             testing::HasSubstr("record without hidden_mean")));
  }
}

TEST(StatesRealModel, AddUp) {
  const auto model = open_real_model(64);
  const std::vector<Token> prompt =
      model->tokenize(ask(*model, "Where does the Danube rise, and where does it end?"), true, true);
  const SeenStates seen = record_states(*model, prompt, 4);
  for (int layer = 0; layer < static_cast<int>(model->card().layers.size()); ++layer) {
    const States& x = seen.input(layer);
    const States& att = seen.at(layer, Stage::att);
    const States& res = seen.at(layer, Stage::res);
    for (std::size_t i = 0; i < x.size(); ++i) ASSERT_EQ(res[i], x[i] + att[i]) << "layer " << layer;
  }
}

}  // namespace
}  // namespace depthkv
