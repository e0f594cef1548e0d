// SPDX-License-Identifier: Apache-2.0
// What `--dry-run` foretells: sizes exactly, times from short recordings, which leave nothing behind.
#include "tracer/estimate.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "depthkv/error.h"
#include "depthkv/progress.h"
#include "depthkv/record.h"
#include "support/files.h"
#include "support/scratch.h"
#include "support/tiny_model.h"

namespace depthkv {
namespace {

// Counts what is recorded, and fails at the first row if told to.
class WatchedModel : public TinyModel {
 public:
  std::vector<Token> record(const RecordRequest& request, const LayerSink& sink) override {
    prompts.push_back(static_cast<std::int64_t>(request.prompt.size()));
    return TinyModel::record(request, [&](const LayerBlock& block) {
      if (fails) throw Error("the engine failed");
      sink(block);
    });
  }

  bool fails = false;
  std::vector<std::int64_t> prompts;
};

class EstimateCost : public testing::Test {
 protected:
  EstimateCost() {
    std::filesystem::create_directories(temporary_);
    setenv("TMPDIR", temporary_.c_str(), 1);
    std::string text = "Rain falls on the hills.";
    while (text.size() < 300) text += " " + text;
    write_text(scratch_ / "long.txt", text);
    write_text(scratch_ / "short.txt", "Grass grows.");
    plan_.tasks = {{scratch_ / "short.txt", TaskFormat::text}, {scratch_ / "long.txt", TaskFormat::text}};
    plan_.max_new = 7;
    plan_.codec = "none";
  }
  ~EstimateCost() override {
    EXPECT_TRUE(std::filesystem::is_empty(temporary_));
    unsetenv("TMPDIR");
  }

  ScratchDirectory scratch_;
  std::filesystem::path temporary_ = scratch_ / "temporary";
  WatchedModel model_;
  TracePlan plan_;
};

TEST_F(EstimateCost, BytesAreThoseOfTheValuesRecorded) {
  plan_.attention = "1";
  plan_.queries = "all";
  plan_.channels.insert(Channel::repeat_max);
  const TraceEstimate estimate = estimate_traces(model_, plan_, kQuiet);
  record_traces(model_, plan_, scratch_ / "traces", [](auto&&...) {});
  double bytes = 0;
  std::int64_t tokens = 0;
  for (const std::filesystem::path& file : open_trace_set(scratch_ / "traces").files) {
    const Trace trace = Trace::open(file);
    tokens += trace.sample().size();
    for (int layer = 0; layer < 2; ++layer) {
      for (const Channel channel : kChannels) {
        if (!trace.has(channel, layer)) continue;
        const double share = channel == Channel::attention ? 0.5 : 1;  // nothing above the diagonal is stored
        bytes += share * static_cast<double>(trace.storage(channel, layer).bytes);
      }
    }
  }
  EXPECT_EQ(estimate.samples, 2);
  EXPECT_EQ(estimate.truncated, 0);
  EXPECT_EQ(estimate.tokens, tokens);
  EXPECT_DOUBLE_EQ(estimate.bytes, bytes);
}

TEST_F(EstimateCost, SecondsGrowWithTokens) {
  const TraceEstimate both = estimate_traces(model_, plan_, kQuiet);
  EXPECT_EQ(both.slowest, "long");
  EXPECT_GT(both.slowest_seconds, 0);
  EXPECT_GT(both.seconds, both.slowest_seconds);
  EXPECT_LT(both.seconds, 2 * both.slowest_seconds);
  EXPECT_GT(both.slowest_tokens, 300);
  EXPECT_GT(both.tokens_per_second, 0);
}

TEST_F(EstimateCost, OnlyTheStartOfThePromptIsRecorded) {
  std::string text;
  while (text.size() < 1500) text += "Rain falls on the hills. ";
  write_text(scratch_ / "long.txt", text);
  const TraceEstimate estimate = estimate_traces(model_, plan_, kQuiet);
  EXPECT_EQ(model_.prompts, (std::vector<std::int64_t>{128, 128, 512, 128}));
  EXPECT_EQ(estimate.measured_tokens, 513);
  EXPECT_GT(estimate.slowest_tokens, 1500);
}

TEST_F(EstimateCost, APromptOfOneTokenIsEnough) {
  write_text(scratch_ / "short.txt", "a");
  plan_.tasks.resize(1);
  EXPECT_GT(estimate_traces(model_, plan_, kQuiet).seconds, 0);
}

TEST_F(EstimateCost, FailuresLeaveNothingBehind) {  // as the fixture's end checks
  model_.fails = true;
  EXPECT_THROW(estimate_traces(model_, plan_, kQuiet), Error);
  plan_.codec = "lzma";
  EXPECT_THROW(estimate_traces(model_, plan_, kQuiet), InputError);
  plan_.codec = "none";
  plan_.max_prompt = 100;
  EXPECT_THROW(estimate_traces(model_, plan_, kQuiet), InputError);
}

TEST_F(EstimateCost, WithoutATemporaryFolderNothingIsTimed) {
  setenv("TMPDIR", (scratch_ / "nowhere").c_str(), 1);
  EXPECT_THROW(estimate_traces(model_, plan_, kQuiet), InputError);
  EXPECT_TRUE(model_.prompts.empty());
}

TEST(RecordingCost, IsFoundInTimingsThatFollowIt) {
  const RecordingCost truth{.per_token = 2e-3, .per_pair = 3e-7, .per_step = 1e-2};
  const auto timing = [&](std::int64_t tokens, std::int64_t steps) {
    return Timing{tokens, steps, truth.seconds(tokens, steps)};
  };
  const RecordingCost found = fit_cost(timing(128, 0), timing(512, 0), timing(144, 16));
  EXPECT_NEAR(found.per_token, truth.per_token, 1e-12);
  EXPECT_NEAR(found.per_pair, truth.per_pair, 1e-15);
  EXPECT_NEAR(found.per_step, truth.per_step, 1e-12);
  EXPECT_EQ(fit_cost(timing(128, 0), timing(512, 0), {}).per_step, 0);
}

// Whatever the clock says, more tokens take longer.
TEST(RecordingCost, IsNeverNegative) {
  for (const double shorter : {1e-4, 0.1, 5.0}) {
    for (const double generating : {1e-4, 9.0}) {
      const RecordingCost cost = fit_cost({128, 0, shorter}, {512, 0, 1.0}, {144, 16, generating});
      EXPECT_GT(cost.per_token, 0);
      EXPECT_GE(cost.per_pair, 0);
      EXPECT_GE(cost.per_step, 0);
      EXPECT_NEAR(cost.seconds(512, 0), 1.0, 1e-12);
    }
  }
  const RecordingCost one = fit_cost({2, 0, 0.5}, {2, 0, 0.4}, {});
  EXPECT_DOUBLE_EQ(one.seconds(10, 0), 2.0);
}

}  // namespace
}  // namespace depthkv
