// SPDX-License-Identifier: Apache-2.0
// A plan with a study on a real model, twice; its metrics of hidden states against numpy's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "support/command.h"
#include "support/files.h"
#include "support/scratch.h"
#include "support/source.h"

namespace depthkv {
namespace {

using testing::HasSubstr;

std::string samples_of(const std::string& task) {
  const std::string texts[] = {
      "The light was made automatic in March 1998, and the last three keepers left by helicopter.",
      "For a century and a half keepers lived there with their families, two days from the nearest shop.",
      "They grew potatoes behind a wall that kept the salt away, and walkers still reach it by a ferry."};
  std::string lines;
  for (std::size_t i = 0; i < std::size(texts); ++i) {
    const nlohmann::json sample{
        {"id", task + std::to_string(i)}, {"task", task},        {"context", texts[i]}, {"question", "What about it?"},
        {"answers", {"a light"}},         {"max_new_tokens", 6}, {"metric", "f1"}};
    lines += sample.dump() + "\n";
  }
  return lines;
}

TEST(RealStudy, GivesTheSameBytesTwiceAndNumpysMetrics) {
  const ScratchDirectory scratch;
  write_text(scratch / "a.jsonl", samples_of("a"));
  const std::string plan =
      write_text(
          scratch / "plan.yaml",
          "trace: {tasks: [a.jsonl], max_new: 6, preset: study}\n"
          "study: {learn: 1, max_new: 3, documents: 2, views: 4, view_tokens: 16}\n"
          "replay:\n  scorers: [h2o]\n  protect: [1+4]\n  layer_allocators: [uniform, mlp, {name: mga, file: study}, "
          "{name: optimised, file: study}]\n  head_allocators: [uniform]\n  keep: [0.4]\n"
          "verify: {top: 4, scorers: [h2o], controls: 0, keep: [0.4], max_new: 3, bounds: true}\n")
          .string();
  const std::string out = (scratch / "run").string();
  const std::string first = (scratch / "first").string();
  const CommandResult dry = run_depthkv({"run", plan, "--threads", "1", "--out", out, "--dry-run"});
  EXPECT_EQ(dry.exit_code, 0) << dry.errors;
  EXPECT_THAT(dry.output, HasSubstr("1 samples of each task to learn from"));
  for (const char* threads : {"1", "2"}) {
    const CommandResult result = run_depthkv({"run", plan, "--threads", threads, "--out", out});
    ASSERT_EQ(result.exit_code, 0) << result.errors;
    EXPECT_THAT(result.output, HasSubstr("allocations less uniform's"));
    if (!std::filesystem::exists(first)) std::filesystem::rename(out, first);
  }
  for (const char* name : {"importance.json", "importance.csv", "layer_tests.csv", "representations.csv",
                           "correlations.csv", "results.csv", "verify.csv", "comparisons.csv", "budgets.csv",
                           "outcome.svg", "budgets.svg", "metrics.svg", "study.html"})
    EXPECT_EQ(read_text(out + "/" + name), read_text(first + "/" + name)) << name;
  EXPECT_FALSE(std::filesystem::exists(out + "/.importance"));

  const std::string script = kSource / "tests/llama/representations.py";
  const CommandResult python =
      run_command({std::getenv("DEPTHKV_PYTHON"), script, out, "2", "4", out + "/traces/a0.h5"});
  EXPECT_EQ(python.exit_code, 0) << python.output << python.errors;
}

}  // namespace
}  // namespace depthkv
