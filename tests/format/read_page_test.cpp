// SPDX-License-Identifier: Apache-2.0
// docs/read-a-trace.md holds a program; it has to run, and to say what is true.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "support/command.h"
#include "support/files.h"
#include "support/scratch.h"
#include "support/source.h"
#include "support/synthetic_trace.h"

namespace depthkv {
namespace {

// The page's blocks of Python, one after the other.
std::string program_of(const std::string& page) {
  constexpr std::string_view kBegin = "```python\n";
  std::string program;
  for (std::size_t at = page.find(kBegin); at != std::string::npos; at = page.find(kBegin, at)) {
    at += kBegin.size();
    const std::size_t end = page.find("```", at);
    program += page.substr(at, end - at);
    at = end;
  }
  return program;
}

TEST(ReadATrace, ThePagesProgramRecomputesAttention) {
  const char* python = std::getenv("DEPTHKV_PYTHON");
  ASSERT_NE(python, nullptr) << "DEPTHKV_PYTHON names a Python with h5py; scripts/env.sh sets it";
  const ScratchDirectory scratch;
  SyntheticTrace options;
  options.attention = true;
  const std::filesystem::path trace = write_synthetic_trace(scratch.path(), options);
  const std::string page = read_text(kSource / "docs/read-a-trace.md");
  const std::filesystem::path script = write_text(scratch / "page.py", program_of(page));
  const CommandResult result = run_command({python, script.string(), trace.string()});
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_THAT(result.output, testing::HasSubstr("synthetic of synthetic on synthetic\n"
                                                "180 tokens: the context ends at 150 and the prompt at 170\n"));
  const std::string label = "largest difference: ";
  const std::size_t at = result.output.find(label);
  ASSERT_NE(at, std::string::npos) << result.output;
  const double difference = std::stod(result.output.substr(at + label.size()));
  EXPECT_TRUE(difference >= 0 && difference <= 2e-3) << result.output;
}

}  // namespace
}  // namespace depthkv
