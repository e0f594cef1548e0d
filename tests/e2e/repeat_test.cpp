// SPDX-License-Identifier: Apache-2.0
// A context that is repeated: what is fed, what is recorded of it, and what scorers make of that.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "depthkv/error.h"
#include "depthkv/progress.h"
#include "depthkv/replay.h"
#include "support/checksums.h"
#include "support/files.h"
#include "support/repeat_by_hand.h"
#include "support/scratch.h"
#include "support/tiny_model.h"
#include "tracer/jobs.h"

namespace depthkv {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class Repeated : public testing::Test {
 protected:
  Repeated() {
    plan_.tasks = {{write_text(scratch_ / "t.jsonl",
                               R"({"id": "s", "context": "The code of the box is 417. Grass grows in the rain.", )"
                               R"("question": "What is the code?", "answers": ["417"], "max_new_tokens": 9, )"
                               R"("evidence": [[0, 27]], "metric": "f1"})"
                               "\n")}};
    plan_.channels.insert(Channel::repeat_max);
  }

  TraceJob job() const { return make_job(model_, plan_, read_samples(plan_).at(0)); }

  // Each passage as the rest of an ordinary prompt.
  std::vector<std::vector<FedRows>> fed_as_prompts(const TraceJob& job) {
    std::vector<std::vector<FedRows>> all;
    for (const Passage& passage : job.repetition.passages) {
      const auto behind = static_cast<std::size_t>(passage.behind);
      std::vector<Token> tokens(job.prompt.tokens.begin(), job.prompt.tokens.begin() + passage.behind);
      tokens.insert(tokens.end(), passage.tokens.begin(), passage.tokens.end());
      std::vector<FedRows>& rows = all.emplace_back(model_.card().layers.size());
      const auto width = static_cast<std::size_t>(model_.card().embedding);
      Model::RecordRequest request{.prompt = tokens};
      request.states = [&](const StateBlock& block) {
        if (block.stage != Stage::pre) return;
        for (std::size_t r = 0; r < static_cast<std::size_t>(block.rows); ++r) {
          double square = 0;
          for (const float x : block.data.subspan(r * width, width)) square += double{x} * double{x};
          if (static_cast<std::size_t>(block.first) + r >= behind)
            rows[static_cast<std::size_t>(block.layer)].norms.push_back(static_cast<float>(std::sqrt(square)));
        }
      };
      model_.record(request, [&](const LayerBlock& block) {
        FedRows& layer = rows[static_cast<std::size_t>(block.layer)];
        if (block.channel == Channel::keys) layer.keys.insert(layer.keys.end(), block.data.begin(), block.data.end());
        if (block.channel == Channel::queries)
          layer.queries.insert(layer.queries.end(), block.data.begin(), block.data.end());
      });
      for (FedRows& layer : rows) {
        const std::size_t row = layer.queries.size() / tokens.size();
        layer.queries.erase(layer.queries.begin(), layer.queries.begin() + static_cast<std::ptrdiff_t>(row * behind));
      }
    }
    return all;
  }

  void expect_as_by_hand(const TraceJob& job, const Trace& trace) {
    const auto fed = fed_as_prompts(job);
    for (int layer = 0; layer < 2; ++layer) {
      const auto expected = repeats_by_hand(model_.card(), layer, job.prompt.segments, job.repetition, fed);
      auto next = expected.begin();
      for (const Repeat repeat : kRepeats) {
        const Tensor found = trace.repeat_max(layer, repeat, Cut::prompt);
        for (const float x : found.values()) {
          ASSERT_NEAR(x, *next, 1e-5) << to_string(repeat) << ' ' << next - expected.begin();
          ++next;
        }
      }
      EXPECT_EQ(next, expected.end());
      EXPECT_GT(*std::ranges::max_element(expected), 0.3) << "attention is even, so wrong rows would pass, too";
    }
  }

  ScratchDirectory scratch_;
  TinyModel model_{TinyModelOptions{.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 6, .batch = 17}};
  TracePlan plan_;
};

TEST_F(Repeated, MaximaAreThoseOfAnOrdinaryPass) {
  record_traces(model_, plan_, scratch_ / "traces", kQuiet);
  const TraceJob whole = job();
  ASSERT_EQ(whole.repetition.chunks.size(), 1U);
  expect_as_by_hand(whole, Trace::open(scratch_ / "traces/s.h5"));
  EXPECT_THAT(validate_trace_set(scratch_ / "traces", kQuiet), testing::IsEmpty());
}

TEST_F(Repeated, ChunksDoNotSeeEachOther) {
  TraceJob chunked = job();
  chunked.repetition = make_repetition(model_, chunked.prompt, "test", 20);
  ASSERT_EQ(chunked.repetition.chunks.size(), 3U) << "the last one ragged";
  record_one(model_, plan_, chunked, scratch_ / "s.h5");
  expect_as_by_hand(chunked, Trace::open(scratch_ / "s.h5"));
}

TEST_F(Repeated, NothingElseChangesAndThreadsDoNotMatter) {
  plan_.threads = 1;
  record_traces(model_, plan_, scratch_ / "one", kQuiet);
  plan_.threads = 3;
  record_traces(model_, plan_, scratch_ / "three", kQuiet);
  auto with = stored_checksums(scratch_ / "one/s.h5");
  EXPECT_EQ(with, stored_checksums(scratch_ / "three/s.h5"));
  plan_.channels.erase(Channel::repeat_max);
  record_traces(model_, plan_, scratch_ / "without", kQuiet);
  std::erase_if(with, [](const auto& entry) { return entry.first.ends_with("repeat_max"); });
  EXPECT_EQ(with, stored_checksums(scratch_ / "without/s.h5"));
}

TEST_F(Repeated, PassagesAskForEachChunkInTheUsersTurn) {
  const Prompt prompt = job().prompt;
  const Repetition three = make_repetition(model_, prompt, "test", 20);
  std::vector<std::string> texts;
  for (const Passage& passage : three.passages) {
    EXPECT_EQ(passage.behind, prompt.segments.context.end);
    texts.push_back(model_.detokenize(passage.tokens));
  }
  EXPECT_THAT(texts, testing::ElementsAre("\n\nRepeat the previous context exactly.</user>The code of the box ",
                                          "\n\nRepeat the part of the previous context exactly, starting withthe box "
                                          "</user>is 417. Grass grows ",
                                          "\n\nRepeat the part of the previous context exactly, starting with"
                                          "s grows </user>in the rain."));
  const Span context = prompt.segments.context;
  EXPECT_THAT(three.chunks, testing::ElementsAre(Span{context.begin, context.begin + 20},
                                                 Span{context.begin + 20, context.begin + 40},
                                                 Span{context.begin + 40, context.end}));
}

TEST_F(Repeated, AChatGetsANewTurnAndAPlainTextALine) {
  TaskSample sample;
  sample.messages = {{"user", "A long text."}, {"assistant", "Yes."}, {"user", "Why?"}};
  const auto text = [&] {
    return model_.detokenize(make_repetition(model_, make_prompt(model_, sample), "test").passages.at(0).tokens);
  };
  EXPECT_EQ(text(), "</assistant><user>Repeat the previous context exactly.</user>A long text.</user><assistant>Yes.");
  sample = {};
  sample.context = "Plain.";
  EXPECT_EQ(text(), "\n\nRepeat the previous context exactly.\nPlain.");
}

// A model of another context length.
class Narrow : public TinyModel {
 public:
  explicit Narrow(std::int64_t length) : card_(TinyModel::card()) { card_.context_length = length; }
  const ModelCard& card() const override { return card_; }

 private:
  ModelCard card_;
};

TEST_F(Repeated, ChunksAreAsShortAsTheModelsContextMakesThem) {
  TaskSample sample;
  sample.context = std::string(300, 'x');
  const auto repeat = [&](std::int64_t length) {
    const Narrow narrow(length);
    const Prompt prompt = make_prompt(narrow, sample);
    for (const Passage& passage : make_repetition(narrow, prompt, "f.jsonl:3: sample s").passages)
      EXPECT_LE(passage.behind + static_cast<std::int64_t>(passage.tokens.size()), length);
    return make_repetition(narrow, prompt, "f.jsonl:3: sample s").chunks.size();
  };
  EXPECT_EQ(repeat(2000), 1U);
  EXPECT_EQ(repeat(301 + 73 + 100), 3U) << "73: the longest request";
  try {
    repeat(301 + 73 + 63);
    FAIL() << "accepted";
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("f.jsonl:3: sample s: the model's context leaves 136 tokens"),
                                    HasSubstr("137 or more"), HasSubstr("record without repeat_max")));
  }
}

TEST_F(Repeated, APromptThatMayBeCutLeavesRoom) {
  Narrow narrow(600);
  plan_.truncate = Truncate::middle;
  TaskSample sample;
  sample.context = std::string(900, 'x');
  sample.answers = {""};
  const TraceJob cut = make_job(narrow, plan_, sample);
  EXPECT_EQ(cut.prompt.tokens.size(), 600U - kRepeatRoom);
  EXPECT_GT(cut.repetition.chunks.size(), 1U);
  plan_.truncate = Truncate::error;
  sample.context.resize(520);
  EXPECT_THROW(make_job(narrow, plan_, sample), InputError) << "at once, not after an hour";
}

TEST_F(Repeated, ScorersRunOnItAndSayWhereItIsMissing) {
  record_traces(model_, plan_, scratch_ / "with", kQuiet);
  plan_.channels.erase(Channel::repeat_max);
  record_traces(model_, plan_, scratch_ / "without", kQuiet);
  ReplayPlan plan;
  plan.scorers = {{"kvzip", {}, ""}, {"kvzip", {{"plus", true}}, ""}, {"kvcompose", {}, ""}};
  plan.layer_allocators = {{"uniform", {}, ""}, {"pooled", {}, ""}, {"kvcompose", {}, ""}};
  plan.head_allocators = {{"uniform", {}, ""}, {"adakv", {{"alpha", 0.0}}, ""}};
  plan.keep = {0.3, 0.8};
  for (const Cut cut : {Cut::context, Cut::prompt}) {
    plan.cut = cut;
    const ResultTable table = replay(open_trace_set(scratch_ / "with"), plan, builtin_policies(), kQuiet);
    EXPECT_FALSE(table.any_skipped());
    const ResultTable bare = replay(open_trace_set(scratch_ / "without"), plan, builtin_policies(), kQuiet);
    EXPECT_THAT(bare.samples[0].why_skipped({0, 0, 0}),
                AllOf(HasSubstr("needs repeat_max, the trace holds keys"), HasSubstr("record with repeat_max")));
  }
}

}  // namespace
}  // namespace depthkv
