// SPDX-License-Identifier: Apache-2.0
// Public layouts of JSON lines, read with the mappings that configs/tasks/README.md gives for them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "depthkv/tasks.h"
#include "support/files.h"
#include "support/source.h"

namespace depthkv {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;


// The mapping of a layout, which has to be the one that the page shows.
TaskSource layout(const std::string& name, std::map<std::string, std::string> fields, const std::string& metric) {
  std::string flag = "--tasks " + name + ".jsonl --fields ";
  for (const auto& [field, key] : fields) flag += (flag.ends_with(' ') ? "" : ",") + field + "=" + key;
  flag += " --defaults metric=" + metric + ",max_new_tokens=32";
  EXPECT_THAT(read_text(kSource / "configs/tasks/README.md"), HasSubstr(flag));
  TaskSource source{kSource / "tests/unit/layouts" / (name + ".jsonl"), TaskFormat::tasks, std::move(fields)};
  source.defaults.metric = metric;
  source.defaults.max_new_tokens = 32;
  return source;
}

TEST(Layouts, LongBench) {
  const auto samples =
      read_tasks(layout("longbench", {{"id", "_id"}, {"question", "input"}, {"task", "dataset"}}, "f1"));
  ASSERT_EQ(samples.size(), 3U);
  EXPECT_EQ(samples[0].id, "5f1c0a9e");
  EXPECT_EQ(samples[0].task, "hotpotqa");
  EXPECT_EQ(samples[0].question, "Who repaired the clock of Marrow Hill?");
  EXPECT_THAT(samples[0].context, StartsWith("Passage 1:\nThe clock"));
  EXPECT_THAT(samples[0].answers, ElementsAre("Ada Quill", "Quill"));
  EXPECT_EQ(samples[2].question, "") << "its summaries have no input";
  EXPECT_EQ(samples[1].metric, "f1");
  EXPECT_EQ(samples[1].max_new_tokens, 32);
}

TEST(Layouts, InfiniteBench) {
  const auto samples =
      read_tasks(layout("infinitebench", {{"answers", "answer"}, {"question", "input"}}, "string_match_part"));
  ASSERT_EQ(samples.size(), 3U);
  EXPECT_EQ(samples[0].id, "0");
  EXPECT_EQ(samples[0].question, "What is the pass key?");
  EXPECT_THAT(samples[0].answers, ElementsAre("71432"));
  EXPECT_THAT(samples[1].answers, ElementsAre("03fe")) << "one string in place of a list";
  EXPECT_THAT(samples[1].context, HasSubstr("\"77aa\": \"03fe\""));
}

TEST(Layouts, Ruler) {
  const auto samples = read_tasks(
      layout("ruler", {{"answers", "outputs"}, {"context", "input"}, {"id", "index"}, {"question", "answer_prefix"}},
             "string_match_all"));
  ASSERT_EQ(samples.size(), 2U);
  EXPECT_EQ(samples[0].id, "0");
  EXPECT_EQ(samples[0].question, " The magic number of the calm-willow is");
  EXPECT_THAT(samples[0].context, HasSubstr("calm-willow is 5483920"));
  EXPECT_THAT(samples[1].answers, ElementsAre("KQD", "HHT"));
}

TEST(Layouts, Squad) {
  const auto samples = read_tasks(layout("squad", {{"answers", "answers.text"}, {"task", "title"}}, "f1"));
  ASSERT_EQ(samples.size(), 2U);
  EXPECT_EQ(samples[0].id, "56be");
  EXPECT_EQ(samples[0].task, "Heron_Quay");
  EXPECT_EQ(samples[0].question, "Who built Heron Quay?");
  EXPECT_THAT(samples[0].answers, ElementsAre("Tobias Rook", "Rook"));
}

}  // namespace
}  // namespace depthkv
