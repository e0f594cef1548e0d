// SPDX-License-Identifier: Apache-2.0
// A context that the engine repeats: what is recorded follows from the queries, keys and states that it computes.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "depthkv/registry.h"
#include "llama/recorded.h"
#include "llama/tiny_gguf.h"
#include "replay/features.h"
#include "support/files.h"
#include "support/repeat_by_hand.h"
#include "support/scratch.h"
#include "tracer/jobs.h"
#include "tracer/repeat_recorder.h"

namespace depthkv {
namespace {

const Segments kSegments{{3, 70}, 90};

// Requests of random tokens: tiny models have no words.
Repetition random_requests(std::span<const Token> prompt, const ModelCard& card, std::int64_t length) {
  Repetition repetition;
  for (std::int64_t begin = kSegments.context.begin; begin < kSegments.context.end; begin += length) {
    const Span chunk{begin, std::min(begin + length, kSegments.context.end)};
    Passage passage{kSegments.context.end, random_tokens(5, card, static_cast<std::uint32_t>(begin))};
    passage.tokens.insert(passage.tokens.end(), prompt.begin() + chunk.begin, prompt.begin() + chunk.end);
    repetition.chunks.push_back(chunk);
    repetition.passages.push_back(passage);
  }
  return repetition;
}

class TinyRepeat : public testing::TestWithParam<TinyGguf> {
 protected:
  TinyRepeat() {
    write_tiny_gguf(GetParam(), folder_ / "m.gguf");
    model_ = open_llama_model({.model = folder_ / "m.gguf", .threads = 2, .batch = 32});
    prompt_ = random_tokens(static_cast<std::size_t>(kSegments.prompt_end), model_->card(), 3);
  }

  std::vector<std::vector<FedRows>> blank(const Repetition& repetition) const {
    return {repetition.passages.size(), std::vector<FedRows>(model_->card().layers.size())};
  }

  std::filesystem::path folder() const { return folder_.path(); }

  ScratchDirectory folder_;
  std::unique_ptr<Model> model_;
  std::vector<Token> prompt_;
};
INSTANTIATE_TEST_SUITE_P(Architectures, TinyRepeat,
                         testing::Values(tiny_llama(), tiny_qwen2(), tiny_gemma2(), tiny_gemma3(), tiny_phi3(),
                                         tiny_command_r()),
                         [](const auto& test) {
                           std::string name = test.param.architecture;
                           std::erase(name, '-');
                           return name;
                         });

TEST_P(TinyRepeat, MaximaAreThoseOfPlainLoops) {
  const ModelCard& card = model_->card();
  for (const std::int64_t length : {100, 30}) {  // one chunk; three, the last of them ragged
    const Repetition repetition = random_requests(prompt_, card, length);
    auto fed = blank(repetition);
    Sample sample;
    sample.id = std::to_string(length);
    sample.segments = kSegments;
    sample.text_offsets.assign(static_cast<std::size_t>(kSegments.prompt_end), 0);
    const std::filesystem::path file = folder() / trace_file_name(sample.id);
    TraceWriter writer(file, card, kSegments, kSegments.prompt_end + 4, {.attention = {}, .channels = {}});
    RepeatRecorder recorder(writer, card, kSegments, repetition, 2);
    const PassageSink collect = collect_into(fed);
    const std::vector<Token> answer = model_->record({.prompt = prompt_,
                                                      .max_new = 4,
                                                      .passages = repetition.passages,
                                                      .passage_sink =
                                                          [&](std::size_t passage, const LayerBlock& block) {
                                                            collect(passage, block);
                                                            recorder.take(passage, block);
                                                          }},
                                                     [](const LayerBlock&) {});
    recorder.finish();
    sample.tokens = prompt_;
    sample.tokens.insert(sample.tokens.end(), answer.begin(), answer.end());
    writer.finish(sample);
    const Trace trace = Trace::open(file);
    for (int layer = 0; layer < static_cast<int>(card.layers.size()); ++layer) {
      const auto expected = repeats_by_hand(card, layer, kSegments, repetition, fed);
      auto next = expected.begin();
      for (const Repeat repeat : kRepeats) {
        const Tensor found = trace.repeat_max(layer, repeat, Cut::prompt);
        for (const float x : found.values()) {
          ASSERT_NEAR(x, *next, 1e-5) << to_string(repeat) << ", layer " << layer << ' ' << next - expected.begin();
          ++next;
        }
      }
      EXPECT_EQ(next, expected.end());
    }
  }
}

// What is handed out is what an ordinary pass over the same tokens computes, but for the grouping of its rows.
TEST_P(TinyRepeat, PassagesAreThePromptsOfTheirTokens) {
  const ModelCard& card = model_->card();
  const Repetition repetition = random_requests(prompt_, card, 30);
  auto fed = blank(repetition);
  model_->record({.prompt = prompt_, .passages = repetition.passages, .passage_sink = collect_into(fed)},
                 [](const LayerBlock&) {});
  for (std::size_t p = 0; p < fed.size(); ++p) {
    const Passage& passage = repetition.passages[p];
    std::vector<Token> tokens(prompt_.begin(), prompt_.begin() + passage.behind);
    tokens.insert(tokens.end(), passage.tokens.begin(), passage.tokens.end());
    const Recorded plain = record_all(*model_, tokens, {}, 0, {});
    for (std::size_t layer = 0; layer < card.layers.size(); ++layer) {
      const FedRows& rows = fed[p][layer];
      EXPECT_EQ(rows.norms.size(), passage.tokens.size());
      ASSERT_EQ(rows.keys.size(), plain.layers[layer].keys.size());
      for (std::size_t i = 0; i < rows.keys.size(); ++i)
        ASSERT_NEAR(rows.keys[i], plain.layers[layer].keys[i], 3e-2) << "layer " << layer;
      const auto& queries = plain.layers[layer].queries;
      ASSERT_EQ(rows.queries.size() / passage.tokens.size(), queries.size() / tokens.size());
      const std::size_t behind = queries.size() - rows.queries.size();
      for (std::size_t i = 0; i < rows.queries.size(); ++i)
        ASSERT_NEAR(rows.queries[i], queries[behind + i], 3e-2) << "layer " << layer;
    }
  }
}

// Where states can be told.
class StatesRepeat : public TinyRepeat {};
INSTANTIATE_TEST_SUITE_P(Architectures, StatesRepeat,
                         testing::Values(tiny_llama(), tiny_qwen2(), tiny_gemma2(), tiny_gemma3(), tiny_phi3()),
                         [](const auto& test) { return test.param.architecture; });

TEST_P(StatesRepeat, InputNormsAreThoseOfTheStatesBeforeAttention) {
  const ModelCard& card = model_->card();
  const Repetition repetition = random_requests(prompt_, card, 100);
  auto fed = blank(repetition);
  model_->record({.prompt = prompt_, .passages = repetition.passages, .passage_sink = collect_into(fed)},
                 [](const LayerBlock&) {});
  std::vector<Token> tokens(prompt_.begin(), prompt_.begin() + kSegments.context.end);
  tokens.insert(tokens.end(), repetition.passages[0].tokens.begin(), repetition.passages[0].tokens.end());
  std::vector<std::vector<double>> norms(card.layers.size());
  Model::RecordRequest request{.prompt = tokens};
  request.states = [&](const StateBlock& block) {
    if (block.stage != Stage::pre) return;
    for (auto row = block.data.begin(); row != block.data.end(); row += card.embedding) {
      double square = 0;
      for (auto x = row; x != row + card.embedding; ++x) square += double{*x} * double{*x};
      norms[static_cast<std::size_t>(block.layer)].push_back(std::sqrt(square));
    }
  };
  model_->record(request, [](const LayerBlock&) {});
  for (std::size_t layer = 0; layer < norms.size(); ++layer) {
    const std::vector<float>& found = fed[0][layer].norms;
    ASSERT_EQ(norms[layer].size() - found.size(), static_cast<std::size_t>(kSegments.context.end));
    for (std::size_t i = 0; i < found.size(); ++i)
      EXPECT_NEAR(found[i], norms[layer][static_cast<std::size_t>(kSegments.context.end) + i], 3e-2);
  }
}

TEST_P(TinyRepeat, ChangesNothingElse) {
  const Recorded plain = record_all(*model_, prompt_, {}, 6, {});
  const Repetition repetition = random_requests(prompt_, model_->card(), 30);
  auto fed = blank(repetition);
  std::vector<std::vector<float>> keys(plain.layers.size());
  const std::vector<Token> answer = model_->record(
      {.prompt = prompt_, .max_new = 6, .passages = repetition.passages, .passage_sink = collect_into(fed)},
      [&](const LayerBlock& block) {
        auto& layer = keys[static_cast<std::size_t>(block.layer)];
        if (block.channel == Channel::keys) layer.insert(layer.end(), block.data.begin(), block.data.end());
      });
  EXPECT_EQ(answer, plain.answer);
  for (std::size_t layer = 0; layer < keys.size(); ++layer) EXPECT_EQ(keys[layer], plain.layers[layer].keys);
}

// What occurs once has to be looked up where it stands, sentences that recur needn't.
TEST(RealRepeat, WhatIsToldOnceScoresHigherThanWhatRecurs) {
  const ScratchDirectory folder;
  const std::string filler = "Grass grows in the rain, and the hills are green again in spring. ";
  const std::string needle = "The code of the box is 41795. ";
  std::string context = filler + filler + filler;
  const std::size_t at = context.size();
  context += needle + filler + filler + filler;
  const nlohmann::json task{{"id", "s"},
                            {"context", context},
                            {"question", "What is the code?"},
                            {"answers", {"41795"}},
                            {"max_new_tokens", 4},
                            {"evidence", {{at, at + needle.size()}}}};
  const auto model = open_real_model(256);
  TracePlan plan;
  plan.tasks = {{write_text(folder / "t.jsonl", task.dump() + "\n")}};
  plan.channels.insert(Channel::repeat_max);
  plan.threads = 1;
  record_traces(*model, plan, folder / "traces", [](auto&&...) {});
  const Trace trace = Trace::open(folder / "traces/s.h5");
  const Span evidence = trace.sample().evidence.at(0);
  const Span all = trace.sample().segments.context;
  for (const auto& [scorer, params] : std::vector<std::pair<std::string, std::map<std::string, Value>>>{
           {"kvzip", {}}, {"kvzip", {{"plus", true}}}, {"kvcompose", {}}}) {
    const Scorer made = builtin_policies().make_scorer({scorer, params, ""});
    double inside = 0;
    double outside = 0;
    for (int layer = 0; layer < static_cast<int>(trace.model().layers.size()); ++layer) {
      const LayerData data = load_layer(trace, layer, {Cut::context, made.needs, 0, 1}, ops_for(Device::cpu));
      const Tensor scores = made.score(data.features, ops_for(Device::cpu));
      for (std::int64_t g = 0; g < scores.heads(); ++g) {
        double sum = 0;
        double told_once = 0;
        for (std::int64_t j = all.begin; j < all.end; ++j) {
          const double score = scores.row(g, 0)[static_cast<std::size_t>(j)];
          sum += score;
          if (j >= evidence.begin && j < evidence.end) told_once += score;
        }
        inside += told_once / static_cast<double>(evidence.end - evidence.begin) / sum;
        outside += (sum - told_once) / static_cast<double>(all.end - all.begin - evidence.end + evidence.begin) / sum;
      }
    }
    EXPECT_GT(inside, 1.5 * outside) << scorer << ' ' << made.params;
  }
}

TEST(RepeatErrors, PassagesThatDoNotFit) {
  const ScratchDirectory folder;
  write_tiny_gguf(tiny_llama(), folder / "m.gguf");
  const auto model = open_llama_model({.model = folder / "m.gguf", .threads = 1});
  const auto prompt = random_tokens(20, model->card(), 1);
  const PassageSink ignore = [](std::size_t, const LayerBlock&) {};
  std::vector<Passage> passages{{21, random_tokens(3, model->card(), 2)}};
  EXPECT_THROW(model->record({.prompt = prompt, .passages = passages, .passage_sink = ignore}, [](auto&&...) {}),
               Error);
  passages = {{10, random_tokens(503, model->card(), 2)}};
  EXPECT_THROW(model->record({.prompt = prompt, .passages = passages, .passage_sink = ignore}, [](auto&&...) {}),
               InputError);
}

// Phi-3's rotation depends on how many cells there are, and passages take some behind the prompt's.
TEST(LongRepeat, IsRotatedAsWhatPassagesReachTo) {
  const ScratchDirectory folder;
  TinyGguf tiny = tiny_phi3();
  tiny.factors = true;
  write_tiny_gguf(tiny, folder / "m.gguf");
  const auto model = open_llama_model({.model = folder / "m.gguf", .threads = 2, .batch = 32});
  TraceJob job;
  job.prompt.tokens = random_tokens(static_cast<std::size_t>(kSegments.prompt_end), model->card(), 3);
  job.max_new = 2;
  const std::vector<LayerRotation> shorter = model->card_for(job.reach()).rotations;
  job.repetition.passages = {{kSegments.context.end, random_tokens(kTinyShort, model->card(), 5)}};
  EXPECT_LT(job.capacity(), kTinyShort);
  EXPECT_EQ(job.reach(), kSegments.context.end + kTinyShort);
  EXPECT_NE(model->card_for(job.reach()).rotations, shorter);
}

}  // namespace
}  // namespace depthkv
