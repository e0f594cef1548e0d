// SPDX-License-Identifier: Apache-2.0
// From the engine to the file, for models with sliding windows and soft-capped logits: what is recomputed from queries
// and cached keys is what the engine's own softmax gives, and passes the format's check.
#include <gtest/gtest.h>

#include "depthkv/progress.h"
#include "llama/recorded.h"
#include "llama/tiny_gguf.h"
#include "support/scratch.h"
#include "tracer/recorder.h"

namespace depthkv {
namespace {

constexpr std::int64_t kContext = 60;
constexpr std::int64_t kPrompt = 90;

class TinyTrace : public testing::TestWithParam<TinyGguf> {
 protected:
  TinyTrace() {
    write_tiny_gguf(GetParam(), folder_ / "m.gguf");
    model_ = open_llama_model({.model = folder_ / "m.gguf", .threads = 2, .batch = 32});
  }

  Trace record(const std::string& folder, bool engine_softmax) {
    std::filesystem::create_directories(folder_ / folder);
    const ModelCard& card = model_->card();
    Sample sample;
    sample.id = "s";
    sample.tokens = random_tokens(kPrompt, card, 3);
    sample.segments = {{0, kContext}, kPrompt};
    sample.text_offsets.assign(kPrompt, 0);
    const std::vector<Token> answer = random_tokens(5, card, 4);
    const std::vector<bool> all(card.layers.size(), true);
    const std::set<Channel> channels{Channel::keys, Channel::values, Channel::queries, Channel::column_sums};
    const std::filesystem::path file = folder_ / folder / trace_file_name(sample.id);
    TraceWriter writer(file, card, sample.segments, kPrompt + 5,
                       {.attention = all, .engine_softmax = engine_softmax, .channels = channels});
    Recorder recorder(writer, *model_, sample.segments, {channels, all, 2});
    model_->record({.prompt = sample.tokens,
                    .answer = answer,
                    .attention = engine_softmax ? all : std::vector<bool>(),
                    .cached_keys = !engine_softmax},
                   [&](const LayerBlock& block) { recorder.take(block); });
    recorder.finish();
    sample.tokens.insert(sample.tokens.end(), answer.begin(), answer.end());
    writer.finish(sample);
    write_trace_index(folder_ / folder);
    return Trace::open(file);
  }

  ScratchDirectory folder_;
  std::unique_ptr<Model> model_;
};
INSTANTIATE_TEST_SUITE_P(Architectures, TinyTrace,
                         testing::Values(tiny_llama(), tiny_gemma2(), tiny_gemma3(), tiny_phi3()),
                         [](const auto& test) { return test.param.architecture; });

TEST_P(TinyTrace, RecomputedAttentionIsTheEnginesOwn) {
  const Trace own = record("own", true);
  const Trace again = record("again", false);
  const auto expect_near = [](const Tensor& a, const Tensor& b, double tolerance) {
    ASSERT_EQ(a.values().size(), b.values().size());
    for (std::size_t i = 0; i < a.values().size(); ++i) ASSERT_NEAR(a.values()[i], b.values()[i], tolerance) << i;
  };
  for (int layer = 0; layer < static_cast<int>(own.model().layers.size()); ++layer) {
    // Half-precision queries inside of the engine change what later layers see.
    const double tolerance = layer == 0 ? 2e-3 : 3e-2;
    const std::int64_t tokens = own.sample().size();
    expect_near(again.attention(layer, {0, tokens}), own.attention(layer, {0, tokens}), tolerance);
    for (const Cut cut : {Cut::context, Cut::prompt})
      expect_near(again.column_sums(layer, cut), own.column_sums(layer, cut), 10 * tolerance);
  }
}

TEST_P(TinyTrace, BothPassTheCheck) {
  for (const bool engine : {true, false}) {
    record("set", engine);
    EXPECT_EQ(validate_trace_set(folder_ / "set", kQuiet), std::vector<std::string>()) << engine;
    std::filesystem::remove_all(folder_ / "set");
  }
}

}  // namespace
}  // namespace depthkv
