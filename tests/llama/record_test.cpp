// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "depthkv/error.h"
#include "kernels/half.h"
#include "llama/recorded.h"
#include "llama/tiny_gguf.h"
#include "support/scratch.h"

namespace depthkv {
namespace {

constexpr double kAttentionTolerance = 2e-3;  // what the trace format promises; queries meet half-precision keys

void expect_attention_matches(const Recorded& recorded) {
  double peak = 0;
  for (std::size_t layer = 0; layer < recorded.layers.size(); ++layer) {
    for (int head = 0; head < recorded.card.layers[layer].query_heads; ++head) {
      const auto rows = recompute_attention(recorded, static_cast<int>(layer), head);
      const auto& seen = recorded.layers[layer].attention;
      ASSERT_EQ(seen.size(), rows.size());
      double worst = 0;
      for (std::size_t i = 0; i < rows.size(); ++i) {
        const auto& line = seen[i][static_cast<std::size_t>(head)];
        for (std::size_t j = 0; j < line.size(); ++j) {
          const double expected = j <= i ? rows[i][j] : 0.0;
          const double difference = std::abs(expected - double{line[j]});
          if (!(difference <= worst)) worst = difference;
          if (i > 50) peak = std::max(peak, expected);
        }
      }
      EXPECT_LE(worst, kAttentionTolerance) << "layer " << layer << " head " << head;
    }
  }
  EXPECT_GT(peak, 0.1) << "attention is nearly uniform, so this comparison would pass with wrong queries";
}

class TinyRecord : public testing::TestWithParam<TinyGguf> {
 protected:
  std::unique_ptr<Model> open(int batch, int threads = 2) {
    write_tiny_gguf(GetParam(), folder_ / "m.gguf");
    return open_llama_model({.model = folder_ / "m.gguf", .threads = threads, .batch = batch});
  }
  ScratchDirectory folder_;
};

TEST_P(TinyRecord, CardTellsWhatTheFileSays) {
  const TinyGguf& tiny = GetParam();
  const ModelCard card = open(64)->card();
  EXPECT_EQ(card.architecture, tiny.architecture);
  EXPECT_EQ(card.name, "tiny " + tiny.architecture);
  std::vector<LayerShape> layers;
  for (int l = 0; l < tiny.layers; ++l)
    layers.push_back({tiny.query_heads, tiny.kv_heads, tiny.head_dim, tiny.window(l)});
  EXPECT_EQ(card.layers, layers);
  EXPECT_EQ(card.context_length, tiny.context);
  EXPECT_EQ(card.vocabulary, tiny.vocabulary);
  EXPECT_EQ(card.embedding, tiny.embedding);
  const bool interleaved = tiny.architecture == "llama" || tiny.architecture == "mistral3";
  EXPECT_EQ(card.rotary_layout, interleaved ? "interleaved" : "half_split");
  EXPECT_EQ(card.rotary_base, 5000);
  EXPECT_EQ(card.logit_softcap, tiny.architecture == "gemma2" ? 5.0 : 0.0);
  // Gemma scales its queries before they are cached or compared, Phi-3 too.
  EXPECT_NEAR(card.attention_scale, tiny.gemma() || tiny.architecture == "phi3" ? 1.0 : 1 / std::sqrt(tiny.head_dim),
              1e-7);
  EXPECT_EQ(card.fingerprint.size(), 16U);
  EXPECT_EQ(card.device, "cpu");
}

TEST_P(TinyRecord, AttentionIsTheSoftmaxOfRecordedQueriesAndKeys) {
  const auto model = open(48);
  const auto prompt = random_tokens(200, model->card(), 7);
  const auto answer = random_tokens(9, model->card(), 8);
  expect_attention_matches(record_all(*model, prompt, answer, 0, std::vector<bool>(model->card().layers.size(), true)));
}

// Flash attention rounds queries to half precision, which changes what later layers see.
TEST_P(TinyRecord, FlashAttentionShowsTheSameVectors) {
  const auto model = open(48);
  const auto prompt = random_tokens(130, model->card(), 7);
  const auto answer = random_tokens(9, model->card(), 8);
  const Recorded plain = record_all(*model, prompt, answer, 0, std::vector<bool>(model->card().layers.size(), true));
  const Recorded flash = record_all(*model, prompt, answer, 0, {});
  for (std::size_t layer = 0; layer < plain.layers.size(); ++layer) {
    const auto expect_near = [&](const std::vector<float>& a, const std::vector<float>& b) {
      ASSERT_EQ(a.size(), b.size());
      for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 3e-2) << "layer " << layer << ", " << i;
    };
    expect_near(flash.layers[layer].keys, plain.layers[layer].keys);
    expect_near(flash.layers[layer].values, plain.layers[layer].values);
    expect_near(flash.layers[layer].queries, plain.layers[layer].queries);
    expect_near(flash.layers[layer].unrotated, plain.layers[layer].unrotated);
    for (const Recorded* recorded : {&flash, &plain}) {
      std::vector<float> cached(recorded->layers[layer].cached_keys.size());
      from_half(recorded->layers[layer].cached_keys, cached);
      EXPECT_EQ(cached, recorded->layers[layer].keys);
    }
  }
}

TEST_P(TinyRecord, FlashAttentionIsUsedWhereNoRowsAreWanted) {
  const auto model = open(48);
  const auto prompt = random_tokens(60, model->card(), 7);
  const Recorded plain = record_all(*model, prompt, {}, 0, std::vector<bool>(model->card().layers.size(), true));
  EXPECT_NE(record_all(*model, prompt, {}, 0, {}).layers.back().queries, plain.layers.back().queries)
      << "the same bits, which half-precision queries wouldn't give";
}

// Where nothing but a rotation lies between projection and cache.
class PlainTinyRecord : public TinyRecord {};
INSTANTIATE_TEST_SUITE_P(Architectures, PlainTinyRecord, testing::Values(tiny_llama(), tiny_qwen2(), tiny_gemma()),
                         [](const auto& test) { return test.param.architecture; });

// Projections of layer 0 by plain loops from the file's weights. Rotation leaves position 0 as it is.
TEST_P(PlainTinyRecord, FirstLayerIsWhatTheWeightsSay) {
  const auto model = open(16);
  const auto prompt = random_tokens(23, model->card(), 12);
  const RecordedLayer layer = record_all(*model, prompt, {}, 0, {}).layers[0];
  const auto file = folder_ / "m.gguf";
  const auto size = static_cast<std::size_t>(GetParam().embedding);
  const auto embeddings = read_tensor(file, "token_embd.weight");
  const auto norm = read_tensor(file, "blk.0.attn_norm.weight");
  const bool gemma = GetParam().gemma();

  const auto check = [&](const std::string& name, const std::vector<float>& seen, std::size_t positions, double scale) {
    const auto weights = read_tensor(file, "blk.0." + name + ".weight");
    const auto bias = read_tensor(file, "blk.0." + name + ".bias");
    const std::size_t width = weights.size() / size;
    ASSERT_EQ(seen.size(), width * prompt.size());
    for (std::size_t position = 0; position < positions; ++position) {
      const float* x = embeddings.data() + static_cast<std::size_t>(prompt[position]) * size;
      const double gain = gemma ? std::sqrt(static_cast<double>(size)) : 1.0;
      double square = 0;
      for (std::size_t i = 0; i < size; ++i) square += gain * x[i] * gain * x[i];
      const double shrink = gain / std::sqrt(square / static_cast<double>(size) + 1e-5);
      for (std::size_t out = 0; out < width; ++out) {
        double sum = bias.empty() ? 0 : bias[out];
        for (std::size_t i = 0; i < size; ++i) sum += shrink * x[i] * norm[i] * weights[out * size + i];
        ASSERT_NEAR(seen[position * width + out], scale * sum, 5e-3) << name << ' ' << position << ' ' << out;
      }
    }
  };
  check("attn_v", layer.values, prompt.size(), 1);
  check("attn_k", layer.keys, 1, 1);
  const double scale = gemma ? 1 / std::sqrt(GetParam().head_dim) : 1;
  check("attn_q", layer.queries, 1, scale);
  check("attn_q", layer.unrotated, prompt.size(), scale);
}

TEST_P(TinyRecord, OutputProjectionIsTheFilesOwn) {
  const auto model = open(16);
  const LayerShape& shape = model->card().layers[1];
  const auto weights = read_tensor(folder_ / "m.gguf", "blk.1.attn_output.weight");  // [D][heads * d]
  const Tensor projection = model->output_projection(1);
  EXPECT_EQ(projection.heads(), shape.query_heads);
  EXPECT_EQ(projection.rows(), shape.head_dim);
  EXPECT_EQ(projection.columns(), GetParam().embedding);
  const std::int64_t inputs = std::int64_t{shape.query_heads} * shape.head_dim;
  for (std::int64_t j = 0; j < projection.columns(); ++j)
    for (std::int64_t i = 0; i < inputs; ++i)
      ASSERT_EQ(projection.row(i / shape.head_dim, i % shape.head_dim)[static_cast<std::size_t>(j)],
                weights[static_cast<std::size_t>(j * inputs + i)]);
}

TEST_P(TinyRecord, GeneratedAnswerIsRecordedLikeAGivenOne) {
  const auto model = open(32);
  const auto prompt = random_tokens(70, model->card(), 9);
  const std::vector<bool> all(model->card().layers.size(), true);
  const Recorded generated = record_all(*model, prompt, {}, 12, all);
  ASSERT_EQ(generated.answer.size(), 12U);  // without a vocabulary there is no end token
  const Recorded given = record_all(*model, prompt, generated.answer, 0, all);
  EXPECT_EQ(given.answer, generated.answer);
  for (std::size_t layer = 0; layer < all.size(); ++layer) {
    EXPECT_EQ(given.layers[layer].keys, generated.layers[layer].keys);
    EXPECT_EQ(given.layers[layer].values, generated.layers[layer].values);
    EXPECT_EQ(given.layers[layer].queries, generated.layers[layer].queries);
    EXPECT_EQ(given.layers[layer].attention, generated.layers[layer].attention);
  }
}

TEST_P(TinyRecord, BatchesOfAnySizeGiveTheSameRows) {
  const auto whole = open(512);
  const auto prompt = random_tokens(37, whole->card(), 10);
  std::vector<bool> first_only(whole->card().layers.size());
  first_only[0] = true;
  const Recorded expected = record_all(*whole, prompt, {}, 0, first_only);
  for (const int batch : {1, 8, 37}) {
    const Recorded got = record_all(*open(batch), prompt, {}, 0, first_only);
    for (std::size_t layer = 0; layer < got.layers.size(); ++layer)
      for (std::size_t i = 0; i < expected.layers[layer].values.size(); ++i) {
        ASSERT_NEAR(got.layers[layer].keys[i], expected.layers[layer].keys[i], 2e-2) << batch;
        ASSERT_NEAR(got.layers[layer].values[i], expected.layers[layer].values[i], 2e-2) << batch;
      }
  }
}

TEST_P(TinyRecord, ThreadsDoNotChangeTheBits) {
  const auto one = open(64, 1);
  const auto prompt = random_tokens(100, one->card(), 11);
  const std::vector<bool> all(one->card().layers.size(), true);
  const Recorded expected = record_all(*one, prompt, {}, 5, all);
  for (const int threads : {2, 3, 3}) {
    const Recorded got = record_all(*open(64, threads), prompt, {}, 5, all);
    EXPECT_EQ(got.answer, expected.answer);
    for (std::size_t layer = 0; layer < all.size(); ++layer) {
      EXPECT_EQ(got.layers[layer].keys, expected.layers[layer].keys);
      EXPECT_EQ(got.layers[layer].attention, expected.layers[layer].attention);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Architectures, TinyRecord,
                         testing::Values(tiny_llama(), tiny_qwen2(), tiny_qwen3(), tiny_gemma(), tiny_gemma2(),
                                         tiny_gemma3(), tiny_mistral3(), tiny_phi3()),
                         [](const auto& test) { return test.param.architecture; });

TEST(Record, OnePromptTokenAndOneHead) {
  const ScratchDirectory folder;
  write_tiny_gguf({.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 32, .embedding = 32}, folder / "m.gguf");
  const auto model = open_llama_model({.model = folder / "m.gguf", .threads = 1});
  const Recorded recorded = record_all(*model, std::vector<Token>{5}, {}, 1, {true});
  EXPECT_EQ(recorded.answer.size(), 1U);
  const std::vector<float>& row = recorded.layers[0].attention[0][0];
  EXPECT_EQ(row[0], 1.0F);
  EXPECT_EQ(std::count(row.begin() + 1, row.end(), 0.0F), static_cast<std::ptrdiff_t>(row.size()) - 1);
}

TEST(Record, ExceptionsOfTheSinkComeOut) {
  const ScratchDirectory folder;
  write_tiny_gguf(tiny_llama(), folder / "m.gguf");
  const auto model = open_llama_model({.model = folder / "m.gguf", .threads = 1});
  const auto prompt = random_tokens(20, model->card(), 1);
  const LayerSink full = [](const LayerBlock& block) {
    if (block.layer == 1) throw Error("disk full");
  };
  EXPECT_THROW(model->record({prompt, {}, 0, {}}, full), Error);
  EXPECT_EQ(record_all(*model, prompt, {}, 2, {}).answer.size(), 2U);  // and the model goes on working
}

TEST(RecordRealModel, AttentionIsTheSoftmaxOfRecordedQueriesAndKeys) {
  const auto model = open_real_model(64);
  const std::string text = ask(
      *model,
      "The lighthouse at Cape Wrath was first lit on Christmas Day in 1828. It was built by Robert Stevenson, whose "
      "family "
      "planned most of Scotland's lights, from granite that was cut at Clash Carnoch and rolled down to the site. For "
      "a "
      "century and a half keepers lived there with their families, two days from the nearest shop when the Kyle of "
      "Durness "
      "was rough, and grew potatoes behind a wall that kept the salt away. The light was made automatic in March 1998, "
      "and "
      "the last three keepers left by helicopter. Walkers still reach it by a ferry and a minibus, and find a cafe in "
      "the "
      "old engine house which, by its owner's promise, never closes. On clear nights its beam was seen from Orkney, "
      "forty "
      "sea miles to the north-east, and fishermen set their watches by it. When was the light made automatic?");
  const std::vector<Token> prompt = model->tokenize(text, true, true);
  ASSERT_GT(prompt.size(), 180U);
  EXPECT_EQ(model->detokenize(prompt), text);
  const Recorded recorded = record_all(*model, prompt, {}, 24, std::vector<bool>(model->card().layers.size(), true));
  EXPECT_FALSE(recorded.answer.empty());
  expect_attention_matches(recorded);
}

}  // namespace
}  // namespace depthkv
