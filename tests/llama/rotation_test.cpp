// SPDX-License-Identifier: Apache-2.0
// What the model card says of the rotation, against the engine's own vectors before and after it.
#include "tracer/llama/rotation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <map>
#include <numbers>

#include "kernels/rotary.h"
#include "llama/recorded.h"
#include "llama/tiny_gguf.h"
#include "support/scratch.h"
#include "tracer/llama/model.h"
#include "tracer/recorder.h"

namespace depthkv {
namespace {

struct Case {
  const char* name;
  TinyGguf model;
};

TinyGguf with(TinyGguf model, const std::function<void(TinyGguf&)>& change) {
  change(model);
  return model;
}

std::vector<Case> all_cases() {
  const auto phi3 = with(tiny_phi3(), [](TinyGguf& m) { m.factors = true; });
  return {{"llama", tiny_llama()},
          {"llama_factors", with(tiny_llama(), [](TinyGguf& m) { m.factors = true; })},
          {"llama_linear", with(tiny_llama(), [](TinyGguf& m) { m.scaling = "linear"; })},
          {"llama_yarn", with(tiny_llama(), [](TinyGguf& m) { m.scaling = "yarn"; })},
          {"qwen2", tiny_qwen2()},
          {"qwen2vl", with(tiny_qwen2(), [](TinyGguf& m) { m.architecture = "qwen2vl"; })},
          {"qwen3_yarn", with(tiny_qwen3(), [](TinyGguf& m) { m.scaling = "yarn"; })},
          {"gemma", tiny_gemma()},
          {"gemma2", tiny_gemma2()},
          {"gemma3", tiny_gemma3()},
          {"phi3", tiny_phi3()},
          {"phi3_factors", phi3},
          {"stablelm", with(tiny_llama(), [](TinyGguf& m) { m.architecture = "stablelm", m.rotated = 6; })},
          {"smollm3", with(tiny_llama(), [](TinyGguf& m) { m.architecture = "smollm3", m.layers = 5; })}};
}

// YaRN's blend of scaled and plain frequencies (Peng et al. 2023, arXiv:2309.00071, section 3.2) with its usual bounds:
// pairs that turn more than 32 times over the original context stay, those that turn less than once are scaled.
double yarn(double frequency, double c, double n) {
  const auto pair_of = [&](double turns) {
    return n * std::log(kTinyShort / (turns * 2 * std::numbers::pi)) / (2 * std::log(double{kTinyBase}));
  };
  const double low = std::max(0.0, std::floor(pair_of(32)));
  const double high = std::min(n - 1, std::ceil(pair_of(1)));
  const double stays = 1 - std::clamp((c - low) / std::max(0.001, high - low), 0.0, 1.0);
  return frequency * ((1 - stays) / double{kTinyScaling} + stays);
}

// What the file says, by the formulas.
LayerRotation expected_rotation(const TinyGguf& model, int layer) {
  LayerRotation rotation;
  if (model.architecture == "smollm3" && layer % 4 == 3) return rotation;
  const int n = model.rotated > 0 ? model.rotated : model.head_dim;
  const bool local = model.architecture == "gemma3" && model.window(layer) > 0;
  for (int c = 0; c < n / 2; ++c) {
    double frequency = std::pow(local ? 10000.0 : double{kTinyBase}, -2.0 * c / n);
    if (model.factors) frequency /= tiny_factor(model.architecture == "phi3" ? "rope_factors_short" : "rope_freqs", c);
    if (model.scaling == "linear") frequency /= double{kTinyScaling};
    if (model.scaling == "yarn") frequency = yarn(frequency, c, n);
    rotation.frequencies.push_back(frequency);
  }
  if (model.scaling == "yarn") rotation.magnitude = 1 + 0.1 * std::log(double{kTinyScaling});
  if (model.architecture == "phi3" && model.factors) rotation.magnitude = double{kTinyAttentionFactor};
  return rotation;
}

// Keeps what the engine's rotations of keys read and give: [position, heads, d] of each layer. The engine may rotate in
// place, so that what is rotated is kept when it has been made.
class RotationWatcher : public Watcher {
 public:
  explicit RotationWatcher(std::int64_t d) : d_(d) {}
  struct Vectors {
    std::vector<float> before, after;
  };
  bool wants(const ggml_tensor& node) override { return std::string_view(node.name).starts_with("Kcur"); }
  void take(ggml_tensor& node) override {
    const std::string_view name = node.name;
    int layer = -1;
    std::from_chars(name.data() + name.find('-') + 1, name.data() + name.size(), layer);
    if (node.op == GGML_OP_ROPE) {
      keys_[layer] = {last_, vectors_of(node)};
    } else if (node.ne[0] == d_) {
      last_ = vectors_of(node);
    }
  }
  const std::map<int, Vectors>& keys() const { return keys_; }

 private:
  static std::vector<float> vectors_of(const ggml_tensor& node) {
    std::vector<float> all;
    for (std::int64_t row = 0; row < node.ne[2]; ++row)
      for (std::int64_t head = 0; head < node.ne[1]; ++head) {
        const auto* first = reinterpret_cast<const float*>(static_cast<const std::byte*>(node.data) +
                                                           static_cast<std::size_t>(row) * node.nb[2] +
                                                           static_cast<std::size_t>(head) * node.nb[1]);
        all.insert(all.end(), first, first + node.ne[0]);
      }
    return all;
  }
  std::int64_t d_;
  std::vector<float> last_;
  std::map<int, Vectors> keys_;
};

// Vectors [position, heads, d] turned back by our own code.
std::vector<float> turned_back(std::vector<float> vectors, const ModelCard& card, int layer, int heads) {
  const auto d = static_cast<std::size_t>(card.layers.at(static_cast<std::size_t>(layer)).head_dim);
  for (std::size_t row = 0; row < vectors.size() / d; ++row)
    unrotate(std::span(vectors).subspan(row * d, d), static_cast<double>(row / static_cast<std::size_t>(heads)),
             rotary_of(card, layer));
  return vectors;
}

void expect_near(const std::vector<float>& a, const std::vector<float>& b, double tolerance, int layer) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], tolerance) << "layer " << layer << ", " << i;
}

constexpr std::size_t kTokens = 230;      // short for all
constexpr double kEngineRounding = 2e-3;  // of angles in floats, at vectors of a few units
constexpr double kHalfRounding = 8e-3;    // of numbers up to 8

class Rotation : public testing::TestWithParam<Case> {
 protected:
  Rotation() {
    write_tiny_gguf(tiny(), folder_ / "m.gguf");
    model_ = open_llama_model({.model = folder_ / "m.gguf", .threads = 2, .batch = 512});
  }
  const TinyGguf& tiny() const { return GetParam().model; }
  // The engine's model, for what our interface doesn't show.
  LlamaModelHandle open_raw() const {
    llama_model_params params = llama_model_default_params();
    params.n_gpu_layers = 0;
    params.use_extra_bufts = false;
    return LlamaModelHandle(llama_model_load_from_file((folder_ / "m.gguf").c_str(), params));
  }

  ScratchDirectory folder_;
  std::unique_ptr<Model> model_;
};
INSTANTIATE_TEST_SUITE_P(Architectures, Rotation, testing::ValuesIn(all_cases()),
                         [](const auto& test) { return test.param.name; });

TEST_P(Rotation, TheCardHasTheFrequenciesOfTheFile) {
  const ModelCard& card = model_->card();
  ASSERT_EQ(card.rotations.size(), card.layers.size());
  for (int layer = 0; layer < tiny().layers; ++layer) {
    const LayerRotation expected = expected_rotation(tiny(), layer);
    const LayerRotation& found = card.rotations[static_cast<std::size_t>(layer)];
    ASSERT_EQ(found.frequencies.size(), expected.frequencies.size()) << layer;
    for (std::size_t c = 0; c < expected.frequencies.size(); ++c)
      EXPECT_NEAR(found.frequencies[c] / expected.frequencies[c], 1, 2e-6) << layer << ", pair " << c;
    EXPECT_NEAR(found.magnitude, expected.magnitude, 1e-6);
    if (expected.magnitude == 1) {
      EXPECT_EQ(found.magnitude, 1) << "exactly";
    }
  }
}

TEST_P(Rotation, KeysTurnBackToWhatTheEngineHad) {
  const std::vector<Token> prompt = random_tokens(kTokens, model_->card(), 5);
  RotationWatcher watcher(tiny().head_dim);
  {
    const LlamaModelHandle raw = open_raw();
    Session session(raw.get(), {.cells = kTokens, .batch = kTokens, .threads = 1});
    session.watch({&watcher});
    session.decode(rows_from(prompt, 0));
  }
  const std::vector<bool> all(model_->card().layers.size(), true);
  const Recorded recorded = record_all(*model_, prompt, {}, 0, all);
  std::size_t rotated = 0;
  for (const auto& [layer, vectors] : watcher.keys()) {
    const int heads = model_->card().layers.at(static_cast<std::size_t>(layer)).kv_heads;
    expect_near(turned_back(vectors.after, model_->card(), layer, heads), vectors.before, kEngineRounding, layer);
    const std::vector<float>& keys = recorded.layers[static_cast<std::size_t>(layer)].keys;
    expect_near(turned_back(keys, model_->card(), layer, heads), vectors.before, kHalfRounding, layer);
    ++rotated;
  }
  const auto turns = [](const LayerRotation& layer) { return !layer.frequencies.empty(); };
  EXPECT_EQ(rotated, static_cast<std::size_t>(std::ranges::count_if(model_->card().rotations, turns)));
}

TEST_P(Rotation, QueriesTurnBackAsTheEngineTurnsThem) {
  const std::vector<Token> prompt = random_tokens(kTokens, model_->card(), 6);
  const Recorded recorded = record_all(*model_, prompt, {}, 0, {});
  for (int layer = 0; layer < tiny().layers; ++layer) {
    const RecordedLayer& seen = recorded.layers[static_cast<std::size_t>(layer)];
    expect_near(turned_back(seen.queries, model_->card(), layer, tiny().query_heads), seen.unrotated, kEngineRounding,
                layer);
  }
}

// From the file: moments of queries that the recorder turned back by the engine, and our turning back of the recorded
// ones.
TEST_P(Rotation, RecordedMomentsAreThoseOfRecordedQueriesTurnedBack) {
  constexpr std::int64_t kPrompt = 120;
  const std::set<Channel> channels{Channel::keys, Channel::values, Channel::queries, Channel::query_mean};
  Sample sample;
  sample.id = "s";
  sample.tokens = random_tokens(kPrompt, model_->card(), 7);
  sample.segments = {{0, 70}, kPrompt};
  sample.text_offsets.assign(kPrompt, 0);
  const std::vector<Token> answer = random_tokens(3, model_->card(), 8);
  const std::filesystem::path file = folder_ / trace_file_name(sample.id);
  {
    TraceWriter writer(file, model_->card_for(kPrompt + 3), sample.segments, kPrompt + 3,
                       {.attention = {}, .all_queries = true, .channels = channels});
    Recorder recorder(writer, *model_, sample.segments, {channels, {}, 1});
    model_->record({.prompt = sample.tokens, .answer = answer, .attention = {}, .unrotated_queries = true},
                   [&](const LayerBlock& block) { recorder.take(block); });
    recorder.finish();
    sample.tokens.insert(sample.tokens.end(), answer.begin(), answer.end());
    writer.finish(sample);
  }
  const Trace trace = Trace::open(file);
  EXPECT_EQ(trace.model(), model_->card());
  for (int layer = 0; layer < tiny().layers; ++layer) {
    const Tensor before = unrotated(trace.queries(layer).view(), rotary_of(trace.model(), layer));
    for (const Cut cut : {Cut::context, Cut::prompt}) {
      const Tensor mean = trace.query_mean(layer, cut);
      const std::int64_t rows = sample.segments.at(cut);
      for (std::int64_t h = 0; h < before.heads(); ++h)
        for (std::size_t c = 0; c < static_cast<std::size_t>(before.columns()); ++c) {
          double sum = 0;
          for (std::int64_t i = 0; i < rows; ++i) sum += double{before.row(h, i)[c]};
          ASSERT_NEAR(mean.row(h, 0)[c], sum / static_cast<double>(rows), 1e-3) << layer << ", " << h << ", " << c;
        }
    }
  }
}

// Phi-3's long factors: from kTinyShort cells on, as the engine chooses them.
TEST(LongRotation, BelongsToTheRecording) {
  const ScratchDirectory folder;
  const TinyGguf tiny = with(tiny_phi3(), [](TinyGguf& m) { m.factors = true; });
  write_tiny_gguf(tiny, folder / "m.gguf");
  const auto model = open_llama_model({.model = folder / "m.gguf", .threads = 1, .batch = 512});
  const ModelCard base = model->card();
  EXPECT_EQ(model->card_for(kTinyShort), base);
  const ModelCard longer = model->card_for(kTinyShort + 1);
  EXPECT_NE(longer, base);
  EXPECT_TRUE(same_model(longer, base));
  EXPECT_EQ(model->card_for(400), longer);
  EXPECT_EQ(model->card_for(10), base);
  for (std::size_t c = 0; c < base.rotations[0].frequencies.size(); ++c) {
    const auto pair = static_cast<int>(c);
    const double ratio =
        double{tiny_factor("rope_factors_short", pair)} / double{tiny_factor("rope_factors_long", pair)};
    EXPECT_NEAR(longer.rotations[0].frequencies[c] / base.rotations[0].frequencies[c], ratio, 1e-5);
  }
  const std::vector<Token> prompt = random_tokens(kTinyShort + 30, base, 9);
  const Recorded recorded = record_all(*model, prompt, {}, 0, {});
  for (int layer = 0; layer < tiny.layers; ++layer) {
    const RecordedLayer& seen = recorded.layers[static_cast<std::size_t>(layer)];
    expect_near(turned_back(seen.queries, longer, layer, tiny.query_heads), seen.unrotated, kEngineRounding, layer);
    const std::vector<float> wrong = turned_back(seen.queries, base, layer, tiny.query_heads);
    double most = 0;
    for (std::size_t i = 0; i < wrong.size(); ++i)
      most = std::max(most, std::abs(double{wrong[i] - seen.unrotated[i]}));
    EXPECT_GT(most, 0.5) << "short and long factors can't be told apart";
  }
}

// Its keys are multiplied dimension by dimension after their rotation.
TEST(OtherRotation, IsSaidToBeOther) {
  const ScratchDirectory folder;
  TinyGguf tiny = tiny_qwen3();
  tiny.architecture = "hunyuan-dense";
  write_tiny_gguf(tiny, folder / "m.gguf");
  const auto model = open_llama_model({.model = folder / "m.gguf", .threads = 1});
  EXPECT_EQ(model->card().rotary_layout, "other");
  EXPECT_TRUE(model->card().rotations.empty());
  const std::vector<Token> prompt = random_tokens(20, model->card(), 1);
  const LayerSink nowhere = [](const LayerBlock&) {};
  EXPECT_EQ(model->record({.prompt = prompt, .answer = {}, .max_new = 2, .attention = {}}, nowhere).size(), 2U);
  EXPECT_THROW(model->record({.prompt = prompt, .answer = {}, .attention = {}, .unrotated_queries = true}, nowhere),
               Error);
}

}  // namespace
}  // namespace depthkv
