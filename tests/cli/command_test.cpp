// SPDX-License-Identifier: Apache-2.0
// The binary as users meet it: exit codes and messages that need no engine.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/command.h"
#include "support/files.h"
#include "support/scratch.h"
#include "support/synthetic_trace.h"

namespace depthkv {
namespace {

using testing::HasSubstr;

class CommandTest : public testing::Test {
 protected:
  CommandTest() {
    write_synthetic_trace(traces_, {});
    std::filesystem::create_directories(traces_);
  }
  // Fails with exit code 2 and one line that says all of `parts`.
  void expect_wrong(const std::vector<std::string>& arguments, const std::vector<std::string>& parts) {
    const CommandResult result = run_depthkv(arguments);
    EXPECT_EQ(result.exit_code, 2) << result.errors;
    EXPECT_EQ(std::count(result.errors.begin(), result.errors.end(), '\n'), 1) << result.errors;
    for (const std::string& part : parts) EXPECT_THAT(result.errors, HasSubstr(part));
  }

  ScratchDirectory scratch_;
  std::filesystem::path traces_ = scratch_ / "traces";
  std::string out_ = (scratch_ / "run").string();
};

TEST_F(CommandTest, WrongPlansAndFlagsExitWithTwo) {
  const std::string plan = write_text(scratch_ / "p.yaml", "traces: traces\nreplay:\n  scorrers: [h2o]\n").string();
  expect_wrong({"run", plan, "--out", out_}, {"p.yaml:3", "scorrers", "\"scorers\""});
  expect_wrong({"replay", traces_.string(), "--scorer", "snapvk", "--out", out_}, {"--scorer", "snapvk", "\"snapkv\""});
  expect_wrong({"replay", traces_.string(), "--keep", "1.5", "--out", out_}, {"--keep", "1.5"});
  expect_wrong({"replay", traces_.string(), "--keep", "0", "--out", out_}, {"--keep", "more than 0"});
  expect_wrong({"replay", traces_.string(), "--kep", "0.5", "--out", out_}, {"--kep"});
  expect_wrong({"replay", (scratch_ / "nowhere").string(), "--out", out_}, {"nowhere"});
  expect_wrong({"run", (scratch_ / "none.yaml").string(), "--out", out_}, {"none.yaml"});
  expect_wrong({"report", traces_.string()}, {"plan.yaml"});
  expect_wrong({"inspect", (scratch_ / "nowhere").string()}, {"nowhere"});
  expect_wrong({}, {"--help"});
}

TEST_F(CommandTest, WrongTaskFilesExitWithTwoBeforeAModelIsLoaded) {
  const auto wrong = [&](const std::vector<std::string>& flags, const std::vector<std::string>& parts) {
    std::vector<std::string> arguments{"trace", "--out", out_, "--tasks"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    expect_wrong(arguments, parts);
    arguments.push_back("--dry-run");
    expect_wrong(arguments, parts);
    EXPECT_FALSE(std::filesystem::exists(out_));
  };
  const std::string foreign =
      write_text(scratch_ / "f.jsonl", "{\"passage\": \"p\", \"query\": \"q\"}\n{\"passage\": 1.5}\n").string();
  wrong({foreign}, {"f.jsonl:1", "no key \"context\""});
  wrong({foreign, "--fields", "context=passage,question=query"}, {"f.jsonl:2", "passage is 1.5"});
  wrong({foreign, "--fields", "context=passage", "--defaults", "metric=f1"}, {"f.jsonl:1", "no answers"});
  wrong({foreign, "--fields", "contxt=passage"}, {"--fields", "\"contxt\"", "\"context\""});
  wrong({foreign, "--defaults", "metric=f2"}, {"--defaults", "\"f2\"", "\"f1\""});
  wrong({foreign, "--format", "chat"}, {"f.jsonl:1", "no key \"messages\""});
  wrong({foreign, "--format", "chats"}, {"--format", "\"chat\""});
  wrong({foreign, "--truncate", "start"}, {"--truncate", "error, middle, end"});
  wrong({(scratch_ / "notes.pdf").string()}, {"--tasks", "notes.pdf", ".txt"});
  wrong({(scratch_ / "notes.txt").string()}, {"notes.txt: no such task file"});
  wrong({write_text(scratch_ / "latin.txt", "caf\xe9").string()}, {"latin.txt:1", "0xe9", "UTF-8"});
}

TEST_F(CommandTest, FolderThatCannotBeWrittenExitsWithTwo) {
  const std::string file = write_text(scratch_ / "file", "x").string();
  expect_wrong({"replay", traces_.string(), "--out", file + "/run"}, {"file/run", "--out"});
}

TEST_F(CommandTest, ReplayLeavesACompleteRunFolderAndReportRepeatsIt) {
  const CommandResult result = run_depthkv({"replay", traces_.string(), "--keep", "0.25,1", "--out", out_});
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_THAT(result.output, HasSubstr("keep 0.25"));
  EXPECT_THAT(result.output, HasSubstr("report.html"));
  const std::filesystem::path run = out_;
  const std::string summary = read_text(run / "summary.json");
  const std::string html = read_text(run / "report.html");
  EXPECT_THAT(html, HasSubstr("</html>"));
  EXPECT_EQ(html.find("http"), std::string::npos) << "the report must work offline";
  std::filesystem::remove(run / "summary.json");
  std::filesystem::remove(run / "report.html");
  const CommandResult again = run_depthkv({"report", out_});
  ASSERT_EQ(again.exit_code, 0) << again.errors;
  EXPECT_EQ(read_text(run / "summary.json"), summary);
  EXPECT_EQ(read_text(run / "report.html"), html);
  EXPECT_EQ(again.output, result.output);
}

TEST_F(CommandTest, PlanOfARunRepeatsIt) {
  ASSERT_EQ(run_depthkv({"replay", traces_.string(), "--out", out_}).exit_code, 0);
  const std::string second = (scratch_ / "second").string();
  const CommandResult result = run_depthkv({"run", out_ + "/plan.yaml", "--out", second});
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_EQ(read_text(second + "/results.csv"), read_text(out_ + "/results.csv"));
}

TEST_F(CommandTest, HelpHasExamplesAndListsAreComplete) {
  for (const char* command : {"trace", "replay", "verify", "report", "run", "inspect", "doctor"}) {
    const CommandResult result = run_depthkv({command, "--help"});
    EXPECT_EQ(result.exit_code, 0) << command;
    EXPECT_THAT(result.output, HasSubstr("Examples:")) << command;
  }
  const CommandResult policies = run_depthkv({"policies"});
  EXPECT_EQ(policies.exit_code, 0);
  for (const char* name : {"snapkv", "oracle", "depthkv", "adakv"}) EXPECT_THAT(policies.output, HasSubstr(name));
  const CommandResult inspect = run_depthkv({"inspect", traces_.string()});
  EXPECT_EQ(inspect.exit_code, 0) << inspect.errors;
  EXPECT_THAT(inspect.output, HasSubstr("column_sums"));
}

}  // namespace
}  // namespace depthkv
