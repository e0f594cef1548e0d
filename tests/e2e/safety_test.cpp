// SPDX-License-Identifier: Apache-2.0
// Whatever happens to the process, the disk or the folder: finished samples are whole, and the rest can be recorded.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <thread>

#include "depthkv/progress.h"
#include "depthkv/record.h"
#include "depthkv/registry.h"
#include "depthkv/replay.h"
#include "support/checksums.h"
#include "support/command.h"
#include "support/files.h"
#include "support/scratch.h"
#include "support/synthetic_trace.h"
#include "support/tiny_model.h"

namespace depthkv {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

std::string task_line(const std::string& id, int sentences) {
  std::string context;
  for (int i = 0; i < sentences; ++i) context += "Rain falls on hill " + std::to_string(i) + ". ";
  return R"({"id": ")" + id + R"(", "context": ")" + context +
         R"(", "question": "Where?", "answers": ["hill"], "max_new_tokens": 6, "metric": "f1"})" + "\n";
}

using Checksums = std::map<std::string, std::map<std::string, std::string>>;  // [file][dataset]

Checksums checksums_of(const std::filesystem::path& folder) {
  Checksums all;
  for (const auto& file : open_trace_set(folder).files) all[file.filename().string()] = stored_checksums(file);
  return all;
}

class SafetyTest : public testing::Test {
 protected:
  SafetyTest() {
    std::string lines;
    for (int i = 0; i < kSamples; ++i) lines += task_line("s" + std::to_string(i), 2 + 2 * i);
    tasks_ = write_text(scratch_ / "t.jsonl", lines);
    for (const char* name : {"a", "b"}) std::filesystem::create_directories(scratch_ / name);
  }

  std::vector<std::string> command(const std::filesystem::path& out) const {
    return {DEPTHKV_TINY_TRACE, tasks_.string(), out.string()};
  }

  static constexpr int kSamples = 5;
  ScratchDirectory scratch_;
  std::filesystem::path tasks_;
  std::filesystem::path out_ = scratch_ / "traces";
};

TEST_F(SafetyTest, FiftyKillsAtRandomMomentsHurtNothing) {
  using Clock = std::chrono::steady_clock;
  const auto whole = scratch_ / "whole";
  const auto started = Clock::now();
  ASSERT_EQ(run_command(command(whole)).exit_code, 0);
  const auto length = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - started).count();
  const Checksums expected = checksums_of(whole);
  ASSERT_EQ(expected.size(), static_cast<std::size_t>(kSamples));

  std::mt19937_64 random(5);
  std::size_t seen = 0;
  for (int kill_number = 0; kill_number < 50; ++kill_number) {
    const pid_t child = start_command(command(out_), scratch_ / "a");
    std::this_thread::sleep_for(std::chrono::microseconds(random() % static_cast<std::uint64_t>(length)));
    kill(child, SIGKILL);
    finish_command(child, scratch_ / "a");
    if (!std::filesystem::exists(out_)) continue;
    std::size_t finished = 0;
    for (const auto& entry : std::filesystem::directory_iterator(out_)) {
      const std::string name = entry.path().filename().string();
      if (!expected.contains(name)) continue;
      ++finished;
      EXPECT_THAT(validate_trace_set(entry.path(), kQuiet), IsEmpty());
      EXPECT_EQ(stored_checksums(entry.path()), expected.at(name));
    }
    seen += finished;
    if (finished == expected.size()) std::filesystem::remove_all(out_);
  }
  EXPECT_GT(seen, 0U) << "kills came too early to tell";
  ASSERT_EQ(run_command(command(out_)).exit_code, 0);
  EXPECT_THAT(validate_trace_set(out_, kQuiet), IsEmpty());
  EXPECT_EQ(checksums_of(out_), expected);
}

TEST_F(SafetyTest, TwoProcessesShareAFolder) {
  const pid_t first = start_command(command(out_), scratch_ / "a");
  const pid_t second = start_command(command(out_), scratch_ / "b");
  int recorded = 0;
  for (const auto& [child, folder] : {std::pair(first, "a"), std::pair(second, "b")}) {
    const CommandResult result = finish_command(child, scratch_ / folder);
    EXPECT_EQ(result.exit_code, 0) << result.errors;
    recorded += std::atoi(result.output.c_str());
  }
  EXPECT_GE(recorded, kSamples);
  EXPECT_EQ(open_trace_set(out_).files.size(), static_cast<std::size_t>(kSamples));
  EXPECT_THAT(validate_trace_set(out_, kQuiet), IsEmpty());
}

TEST_F(SafetyTest, AFullDiskIsAnErrorThatLeavesNothingHalfWritten) {
  for (const char* most : {"400", "3000", "30000", "100000"}) {
    std::vector<std::string> starved = command(out_);
    starved.emplace_back(most);
    for (const std::filesystem::path& out : {out_, scratch_ / "sweep"}) {
      if (out != out_) starved[2] = out, starved.emplace_back("sweep");
      const CommandResult result = run_command(starved);
      EXPECT_EQ(result.exit_code, 1) << most << ": " << result.errors;
      EXPECT_THAT(result.errors, testing::AnyOf(HasSubstr("disk"), HasSubstr("can't be written"))) << most;
      for (const auto& entry : std::filesystem::directory_iterator(out))
        EXPECT_THAT(entry.path().filename().string(), testing::Not(HasSubstr("partial"))) << most;
    }
  }
  EXPECT_EQ(run_command(command(out_)).exit_code, 0);
  EXPECT_THAT(validate_trace_set(out_, kQuiet), IsEmpty());
}

TEST_F(SafetyTest, AFolderThatCannotBeWrittenToIsNamed) {
  // Nothing can be made in /proc, not even by root.
  const SyntheticTrace options;
  try {
    TraceWriter writer("/proc/x.h5", synthetic_card(options), options.segments, 10, {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("/proc/x.h5"));
  }
}

TEST_F(SafetyTest, LeftoversAreRemovedUnlessTheirWriterLives) {
  std::filesystem::create_directories(out_);
  const SyntheticTrace options;
  const TraceWriter alive(out_ / "alive.h5", synthetic_card(options), options.segments, 200, {});
  write_text(out_ / ".dead.h5.partial", "half a file");
  EXPECT_THROW(TraceWriter(out_ / "alive.h5", synthetic_card(options), options.segments, 200, {}), TraceBusy);
  TinyModel model;
  TracePlan plan;
  plan.tasks = {{tasks_}};
  plan.limit = 1;
  record_traces(model, plan, out_, kQuiet);
  EXPECT_TRUE(std::filesystem::exists(out_ / ".alive.h5.partial"));
  EXPECT_FALSE(std::filesystem::exists(out_ / ".dead.h5.partial"));
}

TEST_F(SafetyTest, AFileRemovedUnderAReplayIsNamed) {
  ASSERT_EQ(run_command(command(out_)).exit_code, 0);
  const TraceSet set = open_trace_set(out_);
  const Trace open = Trace::open(set.files[1]);
  std::filesystem::remove(set.files[1]);
  EXPECT_THROW(open.keys(0), Error) << "what is read is checked in the file of that name first";
  ReplayPlan plan;
  plan.scorers = {{"h2o", {}, ""}};
  try {
    replay(set, plan, builtin_policies(), kQuiet);
    FAIL() << "a sample that isn't there was replayed";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("s1.h5"));
  }
}

TEST_F(SafetyTest, BlocksThreadsAndCodecDoNotChangeWhatIsRecorded) {
  std::vector<Checksums> all;
  for (const int batch : {48, 7, 512}) {
    for (const Codec codec : kCodecs) {
      TinyModel model(TinyModelOptions{.batch = batch});
      TracePlan plan;
      plan.tasks = {{tasks_}};
      plan.limit = 2;
      plan.attention = "all";
      plan.codec = to_string(codec);
      plan.threads = 1 + batch % 3;
      const auto out = scratch_ / (std::to_string(batch) + plan.codec);
      record_traces(model, plan, out, kQuiet);
      all.push_back(checksums_of(out));
      EXPECT_EQ(all.back(), all.front()) << batch << ' ' << plan.codec;
    }
  }
}

// Peak memory belongs to the largest sample, not to their number.
TEST_F(SafetyTest, MemoryDoesNotGrowWithTheNumberOfSamples) {
  const auto peak = [&](int samples) {
    std::string lines;
    for (int i = 0; i < samples; ++i) lines += task_line("m" + std::to_string(i), 12);
    write_text(tasks_, lines);
    const CommandResult result = run_command(command(scratch_ / std::to_string(samples)));
    EXPECT_EQ(result.exit_code, 0) << result.errors;
    return std::atol(result.output.substr(result.output.find(' ')).c_str());
  };
  const long few = peak(3);
  EXPECT_LT(peak(30), few + few / 4);
}

}  // namespace
}  // namespace depthkv
