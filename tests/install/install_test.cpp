// SPDX-License-Identifier: Apache-2.0
// What `cmake --install` leaves is enough for a stranger's project: examples/own_scorer, built and run outside of ours.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>

#include "support/command.h"
#include "support/files.h"
#include "support/scratch.h"
#include "support/source.h"

namespace depthkv {
namespace {

using testing::HasSubstr;

class InstallTest : public testing::Test {
 protected:
  static void expect_fine(const std::vector<std::string>& command) {
    const CommandResult result = run_command(command);
    ASSERT_EQ(result.exit_code, 0) << testing::PrintToString(command) << '\n' << result.output << result.errors;
  }
  // A stranger configures the project in `source` with ours installed at `prefix_`.
  std::vector<std::string> configure(const std::filesystem::path& source) const {
    const std::string sanitize = DEPTHKV_SANITIZE;
    return {DEPTHKV_CMAKE,
            "-S",
            source.string(),
            "-B",
            build_.string(),
            "-G",
            DEPTHKV_GENERATOR,
            "-DCMAKE_PREFIX_PATH=" + prefix_.string(),
            "-DCMAKE_C_COMPILER=" DEPTHKV_C_COMPILER,
            "-DCMAKE_CXX_COMPILER=" DEPTHKV_CXX_COMPILER,
            "-DCMAKE_CXX_FLAGS=" + (sanitize.empty() ? "" : "-fsanitize=" + sanitize)};
  }

  ScratchDirectory scratch_;
  std::filesystem::path prefix_ = scratch_ / "a prefix";
  std::filesystem::path build_ = scratch_ / "build";
};

TEST_F(InstallTest, AStrangersProjectBuildsAndReplaysItsOwnScorer) {
  expect_fine({DEPTHKV_CMAKE, "--install", DEPTHKV_BUILD_DIR, "--prefix", prefix_.string()});
  const std::filesystem::path example = scratch_ / "own_scorer";  // where none of our sources are near
  std::filesystem::copy(kSource / "examples/own_scorer", example);
  expect_fine(configure(example));
  expect_fine({DEPTHKV_CMAKE, "--build", build_.string()});

  std::string lines;
  for (const char* id : {"one", "two"})
    lines += std::string(R"({"id": ")") + id +
             R"(", "context": "Rain falls on the hill. Sun shines on the lake. Snow lies on the roof.", )"
             R"("question": "Where?", "answers": ["hill"], "max_new_tokens": 6, "metric": "f1"})" +
             "\n";
  const std::string traces = (scratch_ / "traces").string();
  std::filesystem::create_directories(traces);
  expect_fine({DEPTHKV_TINY_TRACE, write_text(scratch_ / "t.jsonl", lines).string(), traces});
  const CommandResult result = run_command({(build_ / "own_scorer").string(), traces, (scratch_ / "out").string()});
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_THAT(result.output, HasSubstr("keep 0.2 (2 samples)"));
  EXPECT_THAT(result.output, HasSubstr("value_norm (power="));
  EXPECT_THAT(read_text(scratch_ / "out/results.csv"), HasSubstr("value_norm,power=1,none,token"));
  EXPECT_THAT(read_text(scratch_ / "out/report.html"), HasSubstr("</html>"));

  const CommandResult command = run_command({(prefix_ / "bin/depthkv").string(), "inspect", traces});
  EXPECT_EQ(command.exit_code, 0) << command.errors;
}

TEST_F(InstallTest, AProjectWithoutCIsToldWhatToWrite) {
  expect_fine({DEPTHKV_CMAKE, "--install", DEPTHKV_BUILD_DIR, "--prefix", prefix_.string()});
  std::filesystem::create_directories(scratch_ / "bare");
  write_text(
      scratch_ / "bare/CMakeLists.txt",
      "cmake_minimum_required(VERSION 3.25)\nproject(bare LANGUAGES CXX)\nfind_package(depthkv CONFIG REQUIRED)\n");
  const CommandResult result = run_command(configure(scratch_ / "bare"));
  EXPECT_NE(result.exit_code, 0);
  const std::string message = std::regex_replace(result.errors, std::regex("\\s+"), " ");  // CMake breaks lines
  EXPECT_THAT(message, HasSubstr("add C to the languages of project()"));
}

}  // namespace
}  // namespace depthkv
