// SPDX-License-Identifier: Apache-2.0
// What is reduced while recording from the engine's own queries and cache, taken for memory of a device.
#include <gtest/gtest.h>

#include "kernels/cuda_backend.h"
#include "kernels/simt/memory.h"
#include "llama/recorded.h"
#include "llama/tiny_gguf.h"
#include "support/scratch.h"
#include "tracer/recorder.h"
#include "tracer/repeat_recorder.h"

namespace depthkv {
namespace {

const Segments kSegments{{3, 60}, 75};

// Everything that a device is asked about is one's from then on.
std::optional<int> engines_device(const View& queries, const HalfRows& keys) {
  const std::int64_t floats = (queries.heads - 1) * queries.head_stride + (queries.rows - 1) * queries.row_stride;
  simt::adopt(queries.data, static_cast<std::size_t>(floats + queries.columns) * sizeof(float));
  simt::adopt(keys.data, static_cast<std::size_t>(keys.rows * keys.row_stride) * sizeof(std::uint16_t));
  return cuda::device_of(queries, keys);
}

class EngineOnDevice : public testing::TestWithParam<TinyGguf> {
 protected:
  EngineOnDevice() {
    write_tiny_gguf(GetParam(), folder_ / "m.gguf");
    model_ = open_llama_model({.model = folder_ / "m.gguf", .threads = 2, .batch = 32});
    const ModelCard& card = model_->card();
    sample_.segments = kSegments;
    sample_.tokens = random_tokens(static_cast<std::size_t>(kSegments.prompt_end), card, 3);
    sample_.text_offsets.assign(sample_.tokens.size(), 0);
    for (const Span chunk : {Span{3, 40}, Span{40, 60}}) {
      Passage passage{kSegments.context.end, random_tokens(5, card, 7)};
      passage.tokens.insert(passage.tokens.end(), sample_.tokens.begin() + chunk.begin,
                            sample_.tokens.begin() + chunk.end);
      repetition_.chunks.push_back(chunk);
      repetition_.passages.push_back(passage);
    }
  }
  ~EngineOnDevice() override { simt::disown_all(); }

  Trace record(const char* id, bool on_device) {
    const ModelCard& card = model_->card();
    sample_.id = id;
    const std::set<Channel> channels{Channel::queries, Channel::column_sums, Channel::repeat_max};
    const std::vector<bool> none(card.layers.size(), false);
    const std::filesystem::path file = folder_ / trace_file_name(id);
    TraceWriter writer(file, card, kSegments, kSegments.prompt_end + 5, {.attention = none, .channels = channels});
    Recorder recorder(writer, *model_, kSegments, {channels, none, 2});
    RepeatRecorder repeats(writer, card, kSegments, repetition_, 2);
    const std::vector<Token> answer = random_tokens(5, card, 4);
    const auto count = [&](const LayerBlock& block) { shown_there_ += block.on_device ? 1 : 0; };
    model_->record({.prompt = sample_.tokens,
                    .answer = answer,
                    .cached_keys = true,
                    .on_device = on_device,
                    .passages = repetition_.passages,
                    .passage_sink =
                        [&](std::size_t passage, const LayerBlock& block) {
                          count(block);
                          repeats.take(passage, block);
                        }},
                   [&](const LayerBlock& block) {
                     count(block);
                     recorder.take(block);
                   });
    recorder.finish();
    repeats.finish();
    Sample sample = sample_;
    sample.tokens.insert(sample.tokens.end(), answer.begin(), answer.end());
    writer.finish(sample);
    return Trace::open(file);
  }

  ScratchDirectory folder_;
  std::unique_ptr<Model> model_;
  Sample sample_;
  Repetition repetition_;
  int shown_there_ = 0;
};
INSTANTIATE_TEST_SUITE_P(Architectures, EngineOnDevice,
                         testing::Values(tiny_llama(), tiny_gemma(), tiny_gemma2(), tiny_qwen3(), tiny_phi3()),
                         [](const auto& test) { return test.param.architecture; });

void expect_near(const Tensor& a, const Tensor& b) {
  ASSERT_EQ(a.values().size(), b.values().size());
  for (std::size_t i = 0; i < a.values().size(); ++i)
    ASSERT_NEAR(a.values()[i], b.values()[i], 3e-5 * (1e-3 + b.values()[i])) << i;
}

TEST_P(EngineOnDevice, GivesWhatTheHostGives) {
  const Trace expected = record("host", true);
  EXPECT_EQ(shown_there_, 0);  // no device
  const UseCudaBackend played({cuda::ops, cuda::devices, engines_device, cuda::gather, cuda::device_of, cuda::upload});
  const Trace found = record("device", true);
  // In every layer: three batches of the prompt, one of the answer, two passages.
  const int layers = static_cast<int>(model_->card().layers.size());
  EXPECT_GE(shown_there_, 6 * layers);
  for (int layer = 0; layer < layers; ++layer) {
    for (const Cut cut : {Cut::context, Cut::prompt}) {
      expect_near(found.column_sums(layer, cut), expected.column_sums(layer, cut));
      for (const Repeat repeat : kRepeats)
        expect_near(found.repeat_max(layer, repeat, cut), expected.repeat_max(layer, repeat, cut));
    }
  }
  shown_there_ = 0;
  record("asked for on the host", false);
  EXPECT_EQ(shown_there_, 0);
}

}  // namespace
}  // namespace depthkv
