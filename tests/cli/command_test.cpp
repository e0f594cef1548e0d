// SPDX-License-Identifier: Apache-2.0
// The binary as users meet it: exit codes and messages that need no engine.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "depthkv/registry.h"
#include "support/command.h"
#include "support/files.h"
#include "support/scratch.h"
#include "support/source.h"
#include "support/synthetic_trace.h"

namespace depthkv {
namespace {

using testing::HasSubstr;

class CommandTest : public testing::Test {
 protected:
  CommandTest() {
    SyntheticTrace options;
    options.moments = options.output_norms = true;
    write_synthetic_trace(traces_, options);
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

// The traces say what the model is like, so nothing opens it.
TEST_F(CommandTest, DryRunOverATraceSetForetellsVerifyAndMemory) {
  write_text(scratch_ / "m.gguf", std::string(2048, 'x'));
  const std::string plan = write_text(scratch_ / "p.yaml",
                                      "model: ${DEPTHKV_TEST_MODEL:-m.gguf}\ntraces: traces\n"
                                      "replay: {scorers: [h2o], layer_allocators: [uniform, pyramid], "
                                      "head_allocators: [uniform], keep: [0.25, 0.5]}\n"
                                      "verify: {top: 1, controls: 1, keep: [0.25, 0.5]}\n")
                               .string();
  const CommandResult result = run_depthkv({"run", plan, "--out", out_, "--dry-run"});
  EXPECT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_THAT(result.output, HasSubstr("verify      1 samples, at most 7 branches each (the full cache among them)"));
  EXPECT_THAT(result.output, testing::ContainsRegex("memory  model and cache take at most .*: 2.0 KiB and "));
  EXPECT_FALSE(std::filesystem::exists(out_));
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

TEST_F(CommandTest, ResultsOfAnotherPlanThanTheFoldersAreRefused) {
  ASSERT_EQ(run_depthkv({"replay", traces_.string(), "--keep", "0.5", "--cut", "prompt", "--out", out_}).exit_code, 0);
  const std::string results = read_text(std::filesystem::path(out_) / "results.csv");
  ASSERT_EQ(run_depthkv({"replay", traces_.string(), "--keep", "0.5", "--cut", "context", "--out", out_}).exit_code, 0);
  write_text(std::filesystem::path(out_) / "results.csv", results);  // as if the second had been killed
  expect_wrong({"report", out_}, {"results.csv", "replay again"});
}

// Whatever would stop a study does so before anything is recorded for it.
TEST_F(CommandTest, StudiesThatCannotBeMeasuredStopBeforeTheyRecord) {
  const std::string task =
      write_text(scratch_ / "t.jsonl", "{\"context\": \"Rain.\", \"question\": \"What?\"}\n").string();
  const auto wrong = [&](const std::string& replay, const std::string& study, const std::string& part) {
    const std::string plan =
        write_text(scratch_ / "p.yaml", "model: " + task + "\ntrace: {tasks: [t.jsonl]}\nreplay: {scorers: [h2o], " +
                                            replay + "}\nstudy: {" + study + "}\n")
            .string();
    expect_wrong({"run", plan, "--out", out_}, {part});
    expect_wrong({"run", plan, "--out", out_, "--dry-run"}, {part});
    EXPECT_FALSE(std::filesystem::exists(out_));
  };
  wrong("keep: [0.5]", "learn: 0", "name one each");  // both head allocators, by default
  wrong("keep: [0.5, 1], head_allocators: [uniform]", "learn: 0", "below 1");
  wrong("keep: [0.5], head_allocators: [uniform], structures: [block]", "learn: 0", "structure token");
  wrong("keep: [0.5], head_allocators: [uniform]", "learn: 1", "leaves one side without any");
}

TEST_F(CommandTest, PlanOfARunRepeatsIt) {
  ASSERT_EQ(run_depthkv({"replay", traces_.string(), "--out", out_}).exit_code, 0);
  const std::string second = (scratch_ / "second").string();
  const CommandResult result = run_depthkv({"run", out_ + "/plan.yaml", "--out", second});
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_EQ(read_text(second + "/results.csv"), read_text(out_ + "/results.csv"));
}

TEST_F(CommandTest, HelpHasExamplesAndListsAreComplete) {
  for (const char* command : {"trace", "replay", "verify", "report", "run", "inspect", "policies", "doctor"}) {
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

TEST_F(CommandTest, PoliciesComeAsTextAsJsonAndAsTheTablesOfTheReadme) {
  const CommandResult text = run_depthkv({"policies"});
  EXPECT_THAT(text.output, HasSubstr("structures ("));
  EXPECT_THAT(text.output, HasSubstr("needs window rows (32); over a group: mean; cost O(H (w + kernel) n)"));
  EXPECT_THAT(text.output, HasSubstr("needs judged rows; over a group: mean; cost O(H n); a bound"));
  const auto json = nlohmann::json::parse(run_depthkv({"policies", "--json"}).output);
  const Registry registry = builtin_policies();
  EXPECT_EQ(json["scorers"].size(), registry.scorers().size());
  EXPECT_EQ(json["structures"].size(), registry.structures().size());
  EXPECT_EQ(json["layer_allocators"].size(), registry.layer_allocators().size());
  EXPECT_EQ(json["head_allocators"].size(), registry.head_allocators().size());
  EXPECT_EQ(json["scorers"]["snapkv"]["parameters"]["window"], 32);
  EXPECT_EQ(json["scorers"]["snapkv"]["parameters"]["pool"], "avg");
  EXPECT_EQ(json["layer_allocators"]["oracle"]["bound"], true);
  EXPECT_EQ(json["layer_allocators"]["depthkv"]["parameters"]["importance"], nlohmann::json::array());
  const std::string readme = read_text(kSource / "README.md");
  const std::string tables =
      "<!-- policies -->\n\n" + run_depthkv({"policies", "--markdown"}).output + "\n<!-- /policies -->\n";
  EXPECT_TRUE(readme.find(tables) != std::string::npos)
      << "the tables of policies in README.md are not what `depthkv policies --markdown` says; build, then run\n"
         "  scripts/policies-table dev";
}

TEST_F(CommandTest, InspectShowsWhatChannelsTake) {
  SyntheticTrace options;
  options.id = "deflated";
  options.codec = Codec::deflate;
  options.attention = true;
  write_synthetic_trace(traces_, options);
  const CommandResult result = run_depthkv({"inspect", traces_.string()});
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_THAT(result.output, testing::ContainsRegex("synthetic +180 +150 +170 +10 +76 +158 "));
  EXPECT_THAT(result.output, testing::ContainsRegex("keys +6/6 +0.03 +0.0[0-9] +[0-9.]+  none, shuffle.deflate"));
  EXPECT_THAT(result.output, testing::ContainsRegex("attention +3/6 +0.74 "));
}

TEST_F(CommandTest, InspectShowsHowLayersRotate) {
  SyntheticTrace options;
  options.layers = 4;
  options.rotary_layout = "half_split";
  options.rotations = {{{1, 0.25}, 1.25}, {}, {{1, 0.25}, 1.25}, {{1, 0.25}, 1.25}};
  const std::filesystem::path folder = scratch_ / "rotated";
  write_synthetic_trace(folder, options);
  const CommandResult result = run_depthkv({"inspect", folder.string()});
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_THAT(result.output, HasSubstr("layers 0,2-3: 4 of 8 dimensions turn, by 1 to 0.25 radians per position, and "
                                       "grow 1.25 times\n"));
  EXPECT_THAT(result.output, HasSubstr("layers 1: no rotation\n"));
}

TEST_F(CommandTest, InspectShowsTruncatedTokensWhereThereAreAny) {
  const std::string traces = traces_.string();
  EXPECT_EQ(run_depthkv({"inspect", traces}).output.find("truncated"), std::string::npos);
  SyntheticTrace options;
  options.id = "cut";
  options.truncated = 37;
  write_synthetic_trace(traces_, options);
  const CommandResult result = run_depthkv({"inspect", traces});
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_THAT(result.output, HasSubstr("query rows truncated"));
  EXPECT_THAT(result.output, testing::ContainsRegex("cut +180 +150 +170 +10 +76 +158 +37 "));
  EXPECT_THAT(result.output, testing::ContainsRegex("synthetic +180 +150 +170 +10 +76 +158 +0 "));
}

TEST_F(CommandTest, InspectDrawsALayer) {
  const auto draw = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments{"inspect", traces_.string(), "--sample", "synthetic", "--layer", "1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_depthkv(arguments);
  };
  setenv("LC_ALL", "C.UTF-8", 1);
  const CommandResult both = draw({});
  setenv("LC_ALL", "C", 1);
  const std::string svg = (scratch_ / "layer.svg").string();
  const CommandResult plain = draw({"--head", "3", "--cut", "context", "--out", svg});
  const CommandResult sums = draw({"--map", "column_sums"});
  unsetenv("LC_ALL");
  ASSERT_EQ(both.exit_code, 0) << both.errors;
  EXPECT_THAT(both.output, HasSubstr("█"));
  EXPECT_THAT(both.output, HasSubstr("attention received per position, layer 1, mean over heads, cut prompt (170 pos"));
  EXPECT_THAT(both.output, HasSubstr("recomputed from queries and keys: 158 query rows"));
  EXPECT_THAT(both.output, HasSubstr("^ evidence"));
  EXPECT_THAT(both.output, HasSubstr("|question"));
  ASSERT_EQ(plain.exit_code, 0) << plain.errors;
  EXPECT_THAT(plain.output, HasSubstr("head 3, cut context (150 positions)"));
  EXPECT_TRUE(std::all_of(plain.output.begin(), plain.output.end(), [](char c) { return c > 0; }));
  const std::string page = read_text(svg);
  EXPECT_TRUE(page.starts_with("<svg xmlns=") && page.ends_with("</svg>\n"));
  EXPECT_THAT(page, HasSubstr("fill-opacity"));
  ASSERT_EQ(sums.exit_code, 0) << sums.errors;
  EXPECT_EQ(sums.output.find("query rows"), std::string::npos);
}

TEST_F(CommandTest, InspectSaysWhatCannotBeDrawn) {
  const std::string traces = traces_.string();
  expect_wrong({"inspect", traces, "--sample", "synthetik", "--layer", "0"}, {"synthetik", "\"synthetic\""});
  expect_wrong({"inspect", traces, "--sample", "synthetic", "--layer", "3"}, {"--layer 3", "0 to 2"});
  expect_wrong({"inspect", traces, "--sample", "synthetic", "--layer", "-1"}, {"--layer -1", "0 to 2"});
  expect_wrong({"inspect", traces, "--sample", "synthetic", "--layer", "0", "--head", "4"}, {"--head 4", "0 to 3"});
  expect_wrong({"inspect", traces, "--sample", "synthetic"}, {"--layer"});
  expect_wrong({"inspect", traces, "--layer", "0"}, {"--sample"});
  SyntheticTrace options;
  options.id = "bare";
  options.column_sums = false;
  write_synthetic_trace(traces_, options);
  expect_wrong({"inspect", traces, "--sample", "bare", "--layer", "0", "--map", "column_sums"},
               {"bare.h5", "layer 0", "no column_sums"});
}

}  // namespace
}  // namespace depthkv
