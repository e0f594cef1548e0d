// SPDX-License-Identifier: Apache-2.0
// The whole loop (trace, replay, verify, report) on a small transformer that needs no engine.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <regex>

#include "depthkv/error.h"
#include "depthkv/progress.h"
#include "depthkv/record.h"
#include "depthkv/report.h"
#include "depthkv/verify.h"
#include "support/files.h"
#include "support/scratch.h"
#include "support/tiny_model.h"

namespace depthkv {
namespace {

class LoopTest : public testing::Test {
 protected:
  LoopTest() {
    std::string lines;
    for (int i = 0; i < 3; ++i) {
      const std::string n = std::to_string(i);
      lines +=
          R"({"id": "s)" + n + R"(", "task": "t", "context": "The code of box )" + n + R"( is 4)" + n +
          R"(17. Grass grows. Rain falls on the hills, day after day.", "question": "What is the code?", "answers": ["4)" +
          n +
          R"(17"], "max_new_tokens": 12, "metric": "f1", "source": "test", "license": "CC0", "evidence": [[0, 20]]})" +
          "\n";
    }
    plan_.tasks = {{write_text(scratch_ / "t.jsonl", lines)}};
    plan_.max_new = 12;
  }

  TraceSet record() {
    record_traces(model_, plan_, traces_, kQuiet);
    return open_trace_set(traces_);
  }

  ScratchDirectory scratch_;
  std::filesystem::path traces_ = scratch_ / "traces";
  TinyModel model_;
  TracePlan plan_;
  Registry registry_ = builtin_policies();
};

ReplayPlan small_plan(Cut cut) {
  ReplayPlan plan;
  plan.cut = cut;
  plan.scorers = {
      {"h2o", {}, ""}, {"knorm", {}, ""}, {"random", {}, ""}, {"snapkv", {{"window", std::int64_t{8}}}, ""}};
  plan.protect = {{1, 4}};
  plan.layer_allocators = {{"uniform", {}, ""}, {"pyramid", {}, ""}};
  plan.head_allocators = {{"uniform", {}, ""}, {"adakv", {}, ""}};
  plan.keep = {0.2, 0.6, 1.0};
  return plan;
}

TEST_F(LoopTest, KeepingEverythingChangesNothingAndLossGrowsAsKeepFalls) {
  const TraceSet traces = record();
  for (const Cut cut : {Cut::prompt, Cut::context}) {
    const ResultTable results = replay(traces, small_plan(cut), registry_, kQuiet);
    VerifyPlan plan;
    plan.keep = {0.2, 0.6, 1.0};
    const Verification verification = verify(model_, traces, results, plan, kQuiet);
    std::vector<double> kl(3);
    std::vector<int> count(3);
    for (const VerifyRow& row : verification.rows) {
      const std::size_t keep = verification.candidates[row.candidate].keep_index;
      kl[keep] += row.kl;
      ++count[keep];
      if (keep == 2) {
        EXPECT_LT(row.kl, 1e-6);
        EXPECT_EQ(row.top1, 1.0);
        EXPECT_NEAR(row.nll, row.nll_full, 1e-6);
        EXPECT_EQ(row.score, row.score_full);
        EXPECT_EQ(row.length_ratio, 1.0);
      }
    }
    EXPECT_GT(kl[0] / count[0], kl[1] / count[1]);
    EXPECT_GT(kl[1] / count[1], 0);
  }
}

TEST_F(LoopTest, CandidatesAreTopControlsAndUniformOfEachKeep) {
  const TraceSet traces = record();
  const ResultTable results = replay(traces, small_plan(Cut::prompt), registry_, kQuiet);
  VerifyPlan plan;
  plan.keep = {0.2, 0.6};
  plan.top = 3;
  plan.controls = 2;
  const std::vector<Candidate> candidates = choose_candidates(results, plan);
  for (const double keep : plan.keep) {
    std::map<std::string, int> roles;
    for (const Candidate& c : candidates) {
      EXPECT_FALSE(results.is_bound(c.choice.policy));
      if (c.choice.keep == keep) ++roles[c.role];
    }
    EXPECT_EQ(roles["top"], 3);
    EXPECT_EQ(roles["control"], 2);
    EXPECT_LE(roles["uniform"], 1);  // none where it is among the top
  }
  for (std::size_t a = 0; a < candidates.size(); ++a) {
    for (std::size_t b = a + 1; b < candidates.size(); ++b) {
      EXPECT_FALSE(candidates[a].policy == candidates[b].policy &&
                   candidates[a].keep_index == candidates[b].keep_index);
    }
  }
}

TEST_F(LoopTest, VerifyStopsOnceTheBestAreToldFromTheRest) {
  const TraceSet traces = record();
  const ResultTable results = replay(traces, small_plan(Cut::prompt), registry_, kQuiet);
  VerifyPlan plan;
  plan.top = 2;
  plan.controls = 0;
  const Verification all = verify(model_, traces, results, plan, kQuiet);
  // As many "best" as there are candidates are told from no others after the first sample.
  plan.stop_when_separate = static_cast<std::int64_t>(all.candidates.size());
  const Verification one = verify(model_, traces, results, plan, kQuiet);
  ASSERT_EQ(one.rows.size(), all.candidates.size());
  const std::size_t sample = one.rows[0].sample;
  for (std::size_t c = 0; c < one.rows.size(); ++c)
    EXPECT_EQ(one.rows[c].kl, all.rows[sample * all.candidates.size() + c].kl);
  // The set is too small for any separation of fewer.
  plan.stop_when_separate = 1;
  EXPECT_EQ(verify(model_, traces, results, plan, kQuiet).rows.size(), all.rows.size());
}

TEST_F(LoopTest, ReportsAreWrittenAndReadBack) {
  const TraceSet traces = record();
  const ResultTable results = replay(traces, small_plan(Cut::prompt), registry_, kQuiet);
  const Verification verification = verify(model_, traces, results, {}, kQuiet);
  write_verify_csv(results, verification, scratch_ / "verify.csv");
  const Verification again = read_verify_csv(results, {}, scratch_ / "verify.csv");
  for (std::size_t r = 0; r < verification.rows.size(); ++r) {
    EXPECT_GE(again.rows[r].length_ratio, 0);
    EXPECT_EQ(again.rows[r].length_ratio, verification.rows[r].length_ratio);
  }
  write_verify_csv(results, again, scratch_ / "again.csv");
  EXPECT_EQ(read_text(scratch_ / "again.csv"), read_text(scratch_ / "verify.csv"));
  write_summary_json(results, again, scratch_ / "summary.json");
  const auto summary = nlohmann::json::parse(read_text(scratch_ / "summary.json"));
  const auto& agreement = summary.at("agreement").at(0);
  const auto& tau = agreement.at("kendall_tau").at("value");
  EXPECT_TRUE(tau.is_number());
  EXPECT_LE(std::abs(tau.get<double>()), 1.0);
  EXPECT_THAT(verify_table(results, verification), testing::HasSubstr("Kendall tau"));
}

TEST_F(LoopTest, ResumeSkipsFinishedSamplesAndAnInterruptionLosesOneAtMost) {
  int calls = 0;
  const Progress stop = [&](std::string_view, std::int64_t done, std::int64_t, std::string_view) {
    if (++calls > 1 && done == 1) throw Interrupted();
  };
  EXPECT_THROW(record_traces(model_, plan_, traces_, stop), Interrupted);
  EXPECT_EQ(open_trace_set(traces_).files.size(), 1U);
  const TraceSummary rest = record_traces(model_, plan_, traces_, kQuiet);
  EXPECT_EQ(rest.resumed, 1);
  EXPECT_EQ(rest.recorded, 2);
  EXPECT_EQ(record_traces(model_, plan_, traces_, kQuiet).recorded, 0);
}

TEST_F(LoopTest, TextChatAndTruncationAreRecordedAndReplayed) {
  const std::string talk =
      R"({"id": "chat", "messages": [{"role": "user", "content": "Grass grows, caf\u00e9s open, day after day."}, )"
      R"({"role": "assistant", "content": "So it is."}, {"role": "user", "content": "Why?"}]})";
  plan_.tasks = {{write_text(scratch_ / "notes.txt", "Rain falls on the hills, day after day, and runs to the sea.")},
                 {write_text(scratch_ / "talk.jsonl", talk), TaskFormat::chat}};
  plan_.tasks[0].format = TaskFormat::text;
  plan_.truncate = Truncate::middle;
  plan_.max_prompt = 90;
  EXPECT_EQ(record_traces(model_, plan_, traces_, kQuiet).truncated, 1);
  const TraceSet traces = open_trace_set(traces_);
  const Sample chat = Trace::open(traces_ / "chat.h5").sample();
  EXPECT_LE(chat.segments.prompt_end, 90);
  EXPECT_GT(chat.truncated, 0);
  EXPECT_THAT(chat.prompt_text, testing::StartsWith("<user>Grass"));
  EXPECT_THAT(chat.prompt_text, testing::EndsWith("So it is.</assistant><user>Why?</user>"));
  const Sample notes = Trace::open(traces_ / "notes.h5").sample();
  EXPECT_EQ(notes.truncated, 0);
  EXPECT_EQ(notes.metric, "none");
  EXPECT_EQ(notes.answer_source, "generated");
  EXPECT_EQ(notes.size() - notes.segments.prompt_end, plan_.max_new);
  const ResultTable results = replay(traces, small_plan(Cut::prompt), registry_, kQuiet);
  for (const VerifyRow& row : verify(model_, traces, results, {}, kQuiet).rows) {
    EXPECT_TRUE(std::isfinite(row.kl));
    EXPECT_TRUE(std::isnan(row.score));
  }
}

TEST_F(LoopTest, PromptsThatAreTooLongAreRefusedBeforeAnyWork) {
  plan_.max_prompt = 40;
  EXPECT_THROW(record(), InputError);
  EXPECT_FALSE(std::filesystem::exists(traces_));
}

TEST_F(LoopTest, AnotherTruncationNeedsAnotherFolder) {
  plan_.truncate = Truncate::end;
  plan_.max_prompt = 60;
  record();
  plan_.truncate = Truncate::middle;
  EXPECT_THROW(record(), InputError);
}

TEST_F(LoopTest, SamplesThatChangedAreRecordedAgain) {
  record();
  std::string lines = read_text(plan_.tasks[0].file);
  lines.replace(lines.find("box 1"), 5, "box 7");
  write_text(plan_.tasks[0].file, lines);
  const TraceSummary done = record_traces(model_, plan_, traces_, kQuiet);
  EXPECT_EQ(done.recorded, 1);
  EXPECT_EQ(done.resumed, 2);
  EXPECT_THAT(Trace::open(traces_ / "s1.h5").sample().prompt_text, testing::HasSubstr("box 7"));
}

// Ends its answers after five tokens, as one that generates an end token would.
class EndingModel : public TinyModel {
 public:
  std::vector<Token> record(const RecordRequest& request, const LayerSink& sink) override {
    RecordRequest shorter = request;
    shorter.max_new = std::min<std::int64_t>(request.max_new, 5);
    return TinyModel::record(shorter, sink);
  }
};

TEST_F(LoopTest, AnotherBoundRecordsAnswersAgainThatItChanges) {
  // Samples recorded again, of three, when the task's bound changes from one to the other in the same folder.
  const auto again = [&](Model& model, const std::string& from, const std::string& to) {
    const std::string lines = read_text(plan_.tasks[0].file);
    const auto set_bound = [&](const std::string& bound) {
      write_text(plan_.tasks[0].file,
                 std::regex_replace(lines, std::regex("(max_new_tokens\": )[0-9]+"), "$01" + bound));
    };
    std::filesystem::remove_all(traces_);
    set_bound(from);
    record_traces(model, plan_, traces_, kQuiet);
    set_bound(to);
    const std::int64_t recorded = record_traces(model, plan_, traces_, kQuiet).recorded;
    EXPECT_EQ(record_traces(model, plan_, traces_, kQuiet).recorded, 0);
    return recorded;
  };
  EXPECT_EQ(again(model_, "7", "12"), 3);   // the old bound cut the answer
  EXPECT_EQ(again(model_, "12", "7"), 3);   // the answer is longer than it may be now
  EXPECT_EQ(again(model_, "12", "40"), 0);  // the plan's bound holds, which is 12
  EXPECT_EQ(again(model_, "7", "0"), 3);    // the reference is fed
  EndingModel ending;
  EXPECT_EQ(again(ending, "7", "12"), 0);
  EXPECT_EQ(again(ending, "12", "7"), 0);
  EXPECT_EQ(again(ending, "12", "5"), 0);
  EXPECT_EQ(again(ending, "12", "4"), 3);
  EXPECT_EQ(again(ending, "5", "12"), 3);  // can't be told from an answer that was cut
}

TEST_F(LoopTest, AnotherModelIsRefused) {
  const TraceSet traces = record();
  const ResultTable results = replay(traces, small_plan(Cut::prompt), registry_, kQuiet);
  TinyModel other(TinyModelOptions{.seed = 99});
  EXPECT_THROW(verify(other, traces, results, {}, kQuiet), InputError);
  EXPECT_THROW(record_traces(other, plan_, traces_, kQuiet), InputError);
}

}  // namespace
}  // namespace depthkv
