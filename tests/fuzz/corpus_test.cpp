// SPDX-License-Identifier: Apache-2.0
// The corpus of the fuzzers, and what they once found, replayed in every build.
#include <gtest/gtest.h>

#include "fuzz/harness.h"
#include "support/files.h"
#include "support/source.h"

namespace depthkv {
namespace {

struct Replayed {
  int files = 0;
  int read = 0;
};

Replayed replay_corpus(const char* folder, bool (*target)(std::span<const unsigned char>)) {
  Replayed replayed;
  const std::filesystem::path corpus = kSource / "tests/fuzz/corpus" / folder;
  for (const auto& entry : std::filesystem::directory_iterator(corpus)) {
    const std::string text = read_text(entry.path());
    ++replayed.files;
    replayed.read += target(std::span(reinterpret_cast<const unsigned char*>(text.data()), text.size())) ? 1 : 0;
  }
  return replayed;
}

TEST(FuzzCorpus, Traces) {
  const Replayed replayed = replay_corpus("trace", fuzz::read_trace);
  EXPECT_GE(replayed.files, 5);
  EXPECT_GE(replayed.read, 3) << "the fuzzer has to start from files that are read to their end";
}

TEST(FuzzCorpus, TaskFiles) {
  const Replayed replayed = replay_corpus("tasks", fuzz::read_task_file);
  EXPECT_GE(replayed.files, 5);
  EXPECT_GE(replayed.read, 3);
}

}  // namespace
}  // namespace depthkv
