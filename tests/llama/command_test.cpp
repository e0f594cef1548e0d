// SPDX-License-Identifier: Apache-2.0
// The binary on a real model: the whole loop, and what users get wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>

#include "llama/tiny_gguf.h"
#include "support/command.h"
#include "support/files.h"
#include "support/scratch.h"
#include "support/source.h"

namespace depthkv {
namespace {

using testing::HasSubstr;

std::string sample_line(const std::string& id, const std::string& context) {
  const nlohmann::json sample{{"id", id},
                              {"context", context},
                              {"question", "When was the light made automatic?"},
                              {"answers", {"March 1998"}},
                              {"max_new_tokens", 12},
                              {"metric", "f1"},
                              {"evidence", {{0, 41}}}};
  return sample.dump() + "\n";
}

const std::string kContext =
    "The light was made automatic in March 1998, and the last three keepers left by helicopter. For a century and a "
    "half keepers lived there with their families, two days from the nearest shop when the sea was rough, and grew "
    "potatoes behind a wall that kept the salt away. Walkers still reach it by a ferry and a minibus.";

class RealCommand : public testing::Test {
 protected:
  CommandResult run(std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"--threads", "1"});
    return run_depthkv(arguments);
  }
  // Exit code 2 and one line with all of `parts`.
  void expect_wrong(const std::vector<std::string>& arguments, const std::vector<std::string>& parts) {
    const CommandResult result = run(arguments);
    EXPECT_EQ(result.exit_code, 2) << result.errors;
    EXPECT_EQ(std::count(result.errors.begin(), result.errors.end(), '\n'), 1) << result.errors;
    for (const std::string& part : parts) EXPECT_THAT(result.errors, HasSubstr(part));
  }
  std::string file(const std::string& name, const std::string& text) {
    return write_text(scratch_ / name, text).string();
  }

  ScratchDirectory scratch_;
  std::string out_ = (scratch_ / "out").string();
};

// verify.csv by column name.
std::vector<std::map<std::string, std::string>> rows_of(const std::filesystem::path& csv) {
  std::vector<std::map<std::string, std::string>> rows;
  std::vector<std::string> names;
  std::istringstream lines(read_text(csv));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream cells(line);
    std::vector<std::string> values;
    for (std::string cell; std::getline(cells, cell, ',');) values.push_back(cell);
    if (names.empty()) {
      names = values;
      continue;
    }
    auto& row = rows.emplace_back();
    for (std::size_t i = 0; i < std::min(names.size(), values.size()); ++i) row[names[i]] = values[i];
  }
  return rows;
}

TEST_F(RealCommand, WholeLoopKeepingEverythingIsExact) {
  const std::string plan = file("plan.yaml",
                                "trace: {tasks: [t.jsonl], max_new: 12, attention: [0, 7]}\n"
                                "replay:\n  scorers: ['snapkv:window=8', h2o]\n  protect: [2+4]\n"
                                "  layer_allocators: [uniform]\n  head_allocators: [uniform]\n  keep: [0.3, 1]\n"
                                "verify: {top: 2, controls: 1, keep: [0.3, 1], max_new: 8}\n");
  file("t.jsonl", sample_line("light", kContext));
  const CommandResult result = run({"run", plan, "--out", out_});
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_THAT(result.output, HasSubstr("Kendall tau"));
  std::map<std::string, double> kl;
  for (auto& row : rows_of(out_ + "/verify.csv")) {
    kl[row["keep"]] += std::stod(row["kl"]);
    if (row["keep"] != "1") continue;
    EXPECT_LT(std::stod(row["kl"]), 1e-6);
    EXPECT_EQ(row["top1"], "1");
    EXPECT_EQ(row["nll"], row["nll_full"]);
  }
  EXPECT_GT(kl["0.3"], 0.01);
  for (auto& row : rows_of(out_ + "/results.csv")) {
    if (row["keep"] != "1") continue;
    const bool loss = row["metric"] == "output_error" || row["metric"] == "predicted_loss";
    EXPECT_EQ(row["value"], loss ? "0" : "1") << row["metric"];
  }

  const std::string script = kSource / "tests/format/read_with_h5py.py";
  const CommandResult python = run_command({std::getenv("DEPTHKV_PYTHON"), script, out_ + "/traces"});
  EXPECT_EQ(python.exit_code, 0) << python.errors;

  const std::string again = (scratch_ / "two_threads").string();
  ASSERT_EQ(run_depthkv({"run", out_ + "/plan.yaml", "--threads", "2", "--out", again}).exit_code, 0);
  EXPECT_EQ(read_text(again + "/results.csv"), read_text(out_ + "/results.csv"));
}

// Starts a command, kills it as soon as `file` is there, and says whether it was still at work.
bool kill_once_there(std::vector<std::string> arguments, const std::filesystem::path& file) {
  arguments.insert(arguments.begin(), DEPTHKV_BINARY);
  const ScratchDirectory output;
  const pid_t child = start_command(arguments, output.path());
  while (!std::filesystem::exists(file)) {
    if (waitpid(child, nullptr, WNOHANG) != 0) return false;
    usleep(1000);
  }
  kill(child, SIGKILL);
  int status = 0;
  return waitpid(child, &status, 0) == child && WIFSIGNALED(status);
}

TEST_F(RealCommand, KilledVerifyAndImportanceGoOnToTheSameBytes) {
  std::string lines;
  for (const char* id : {"a", "b", "c"}) lines += sample_line(id, std::string("Letter ") + id + ". " + kContext);
  ASSERT_EQ(run({"trace", "--tasks", file("t.jsonl", lines), "--max-new", "4", "--out", out_ + "/traces"}).exit_code,
            0);
  const std::string traces = out_ + "/traces";
  const std::string killed = out_ + "/killed";
  const std::string whole = out_ + "/whole";
  for (const std::string& folder : {killed, whole})
    ASSERT_EQ(
        run({"replay", traces, "--scorer", "snapkv", "--scorer", "knorm", "--keep", "0.3", "--out", folder}).exit_code,
        0);
  const auto verify = [](const std::string& folder) {
    return std::vector<std::string>{"verify",        folder, "--top",      "2", "--controls", "2",
                                    "--verify-keep", "0.3",  "--generate", "6", "--threads",  "1"};
  };
  const CommandResult dry = run_depthkv({"verify", killed, "--verify-keep", "0.3", "--dry-run"});
  EXPECT_EQ(dry.exit_code, 0) << dry.errors;
  EXPECT_THAT(dry.output, testing::ContainsRegex("verify +3 samples, [0-9]+ branches each.*cache takes at most"));
  EXPECT_FALSE(std::filesystem::exists(killed + "/verify.csv"));
  EXPECT_TRUE(kill_once_there(verify(killed), killed + "/.verify/a.rows"));
  EXPECT_FALSE(std::filesystem::exists(killed + "/verify.csv"));
  ASSERT_EQ(run_depthkv(verify(killed)).exit_code, 0);
  ASSERT_EQ(run_depthkv(verify(whole)).exit_code, 0);
  EXPECT_EQ(read_text(killed + "/verify.csv"), read_text(whole + "/verify.csv"));
  EXPECT_FALSE(std::filesystem::exists(killed + "/.verify"));

  const auto importance = [&](const std::string& folder) {
    return std::vector<std::string>{"importance", traces, "--out", folder, "--threads", "1"};
  };
  std::vector<std::string> foretell = importance(killed);
  foretell.emplace_back("--dry-run");
  EXPECT_THAT(run_depthkv(foretell).output, HasSubstr("importance  3 samples, 61 branches each"));
  EXPECT_TRUE(kill_once_there(importance(killed), killed + "/.importance/a.rows"));
  ASSERT_EQ(run_depthkv(importance(killed)).exit_code, 0);
  ASSERT_EQ(run_depthkv(importance(whole)).exit_code, 0);
  for (const char* name : {"/importance.csv", "/importance.json"})
    EXPECT_EQ(read_text(killed + name), read_text(whole + name));
}

TEST_F(RealCommand, DryRunPredictsSizeAndTimeAndRecordsNothing) {
  const CommandResult result =
      run({"trace", "--tasks", file("t.jsonl", sample_line("light", kContext)), "--out", out_, "--dry-run"});
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_THAT(result.output, HasSubstr("1 samples (0 truncated)"));
  EXPECT_THAT(result.output, testing::ContainsRegex("predicted: .* in all, .* for light .*measured: [0-9]+ tokens/s"));
  EXPECT_FALSE(std::filesystem::exists(out_));
}

TEST_F(RealCommand, DryRunOfAPlanForetellsVerifyAndMemory) {
  file("t.jsonl", sample_line("light", kContext));
  const std::string plan =
      file("plan.yaml",
           "batch: 64\ntrace: {tasks: [\"${DEPTHKV_TASKS:-t}.jsonl\"], max_new: 12}\n"
           "replay: {scorers: [h2o], layer_allocators: [uniform], head_allocators: [uniform], keep: "
           "[0.3, 0.5]}\nverify: {top: 3, keep: [0.3, 0.5], max_new: 8}\n");
  const CommandResult result = run({"run", plan, "--out", out_, "--dry-run"});
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  // h2o and random at two budgets, and the full cache
  EXPECT_THAT(result.output, HasSubstr("verify      1 samples, at most 5 branches each (the full cache among them)"));
  EXPECT_THAT(result.output,
              testing::ContainsRegex("memory  model and cache take at most [0-9.]+ MiB: [0-9.]+ MiB and"));
  EXPECT_FALSE(std::filesystem::exists(out_));
  const CommandResult none =
      run({"run", plan, "--model", "no.gguf", "--tasks", "no.jsonl", "--out", out_, "--dry-run"});
  EXPECT_EQ(none.exit_code, 2);
  EXPECT_THAT(none.errors,
              testing::ContainsRegex("--model: model: .*no.gguf\n.*--tasks: trace.tasks.path: .*no.jsonl"));
}

TEST_F(RealCommand, WrongInputsExitWithTwo) {
  const std::string tasks = file("t.jsonl", sample_line("light", kContext));
  expect_wrong({"trace", "--model", (scratch_ / "none.gguf").string(), "--tasks", tasks, "--out", out_},
               {"none.gguf", "no such file"});
  expect_wrong({"trace", "--model", file("notes.gguf", "these are notes"), "--tasks", tasks, "--out", out_},
               {"notes.gguf", "not a GGUF model"});
  write_tiny_gguf(tiny_llama(), scratch_ / "cut.gguf");
  std::filesystem::resize_file(scratch_ / "cut.gguf", 3000);
  expect_wrong({"trace", "--model", (scratch_ / "cut.gguf").string(), "--tasks", tasks, "--out", out_}, {"cut.gguf"});

  expect_wrong({"trace", "--tasks", file("empty.jsonl", ""), "--out", out_}, {"empty.jsonl", "no sample"});
  expect_wrong({"trace", "--tasks", file("broken.jsonl", sample_line("a", kContext) + "{\"id\": \n"), "--out", out_},
               {"broken.jsonl:2", "not valid JSON"});
  std::string longer;
  while (longer.size() < 60'000) longer += kContext + " ";
  expect_wrong({"trace", "--tasks", file("long.jsonl", sample_line("long", longer)), "--out", out_},
               {"long.jsonl:1", "13627", "8180"});
  expect_wrong({"trace", "--tasks", tasks, "--out", file("taken", "x") + "/traces"}, {"taken/traces"});
  expect_wrong({"trace", "--tasks", tasks, "--attention", "0,99", "--out", out_}, {"0,99", "0 to 29"});
}

}  // namespace
}  // namespace depthkv
