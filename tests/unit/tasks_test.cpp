// SPDX-License-Identifier: Apache-2.0
// Files of prompts: what is read from them, and what is refused.
#include "depthkv/tasks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "depthkv/error.h"
#include "support/files.h"
#include "support/scratch.h"
#include "support/source.h"

namespace depthkv {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

class TasksTest : public testing::Test {
 protected:
  TaskSource source(const std::string& text, TaskFormat format = TaskFormat::tasks) {
    return {write_text(scratch_ / "file.jsonl", text), format};
  }
  std::string error(const TaskSource& source) {
    try {
      read_tasks(source);
    } catch (const InputError& error) {
      return error.what();
    }
    return "no error";
  }
  std::string error(const std::string& text, TaskFormat format = TaskFormat::tasks) {
    return error(source(text, format));
  }

  ScratchDirectory scratch_;
};

TEST_F(TasksTest, NestedNamesAndAnswersThatAreOneString) {
  TaskSource foreign =
      source(R"({"doc": {"body": "abc", "no": 7}, "a.b": "literal", "gold": "x", "spans": [[0, 1]], "source": null})");
  foreign.fields = {
      {"context", "doc.body"}, {"id", "doc.no"}, {"question", "a.b"}, {"answers", "gold"}, {"evidence", "spans"}};
  const TaskSample sample = read_tasks(foreign).at(0);
  EXPECT_EQ(sample.context, "abc");
  EXPECT_EQ(sample.id, "7");
  EXPECT_EQ(sample.question, "literal");
  EXPECT_THAT(sample.answers, ElementsAre("x"));
  EXPECT_THAT(sample.evidence, ElementsAre(Span{0, 1}));
}

TEST_F(TasksTest, WhatIsAbsentIsMadeOrDefault) {
  const std::vector<TaskSample> samples = read_tasks(source("\n{\"context\": \"a\"}\n{\"context\": \"b\"}\n"));
  EXPECT_EQ(samples[0].id, "file.2");
  EXPECT_EQ(samples[1].id, "file.3");
  EXPECT_EQ(samples[0].metric, "none");
  EXPECT_EQ(samples[0].max_new_tokens, TaskSample::kAnyLength);
  EXPECT_THAT(samples[0].where, HasSubstr("file.jsonl:2"));
}

TEST_F(TasksTest, TheTaskPackIsReadAsBefore) {
  const std::filesystem::path folder = kSource / "configs/tasks";
  std::size_t samples = 0;
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".jsonl") continue;
    ++files;
    for (const TaskSample& sample : read_tasks({entry.path()})) {
      ++samples;
      EXPECT_NE(sample.metric, "none");
      EXPECT_LT(sample.max_new_tokens, TaskSample::kAnyLength);
    }
  }
  EXPECT_EQ(files, 10);
  EXPECT_EQ(samples, 66U);
}

TEST_F(TasksTest, TextIsOneSampleByteForByte) {
  const std::string text = "First line.\r\n\n  caf\xc3\xa9\n";
  const std::vector<TaskSample> samples = read_tasks(source("\xef\xbb\xbf" + text, TaskFormat::text));
  ASSERT_EQ(samples.size(), 1U);
  EXPECT_EQ(samples[0].context, text);
  EXPECT_EQ(samples[0].question, "");
  EXPECT_EQ(samples[0].id, "file");
  EXPECT_EQ(samples[0].max_new_tokens, TaskSample::kAnyLength);
  TaskSource asked = source(text, TaskFormat::text);
  asked.defaults.question = "Why?";
  EXPECT_EQ(read_tasks(asked).at(0).question, "Why?");
}

TEST_F(TasksTest, ChatIsMessagesWithTheAnswerOfTheLastOneAside) {
  const std::string talk =
      R"({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u", "name": "x"},)"
      R"( {"role": "assistant", "content": "a"}, {"role": "user", "content": "q"})";
  const TaskSample open = read_tasks(source(talk + "]}", TaskFormat::chat)).at(0);
  ASSERT_EQ(open.messages.size(), 4U);
  EXPECT_EQ(open.messages[2].role, "assistant");
  EXPECT_EQ(open.messages[3].content, "q");
  EXPECT_TRUE(open.answers.empty());
  const std::string closed = talk + R"(, {"role": "assistant", "content": "gold"}])";
  const TaskSample answered = read_tasks(source(closed + "}", TaskFormat::chat)).at(0);
  EXPECT_EQ(answered.messages.size(), 4U);
  EXPECT_THAT(answered.answers, ElementsAre("gold"));
  const TaskSample both = read_tasks(source(closed + R"(, "answers": "other"})", TaskFormat::chat)).at(0);
  EXPECT_THAT(both.answers, ElementsAre("other"));
}

TEST_F(TasksTest, ErrorsNameLineAndKeyAndWhatToDo) {
  const std::string fine = "{\"context\": \"c\"}\n";
  EXPECT_THAT(error(fine + "{\"contxt\": \"c\"}"), AllOf(HasSubstr("file.jsonl:2"), HasSubstr("\"contxt\"")));
  EXPECT_THAT(error(fine + "{\"context\": 3.5}"),
              AllOf(HasSubstr("file.jsonl:2"), HasSubstr("3.5, expected a string")));
  EXPECT_THAT(error(fine + "{nonsense}"), AllOf(HasSubstr("file.jsonl:2"), HasSubstr("not valid JSON at byte 3")));
  EXPECT_THAT(error(fine + "[1]"), AllOf(HasSubstr("file.jsonl:2"), HasSubstr("a list, expected a JSON object")));
  EXPECT_THAT(error(R"({"context": "c", "metrc": "f1"})"), AllOf(HasSubstr("\"metric\""), HasSubstr("\"metrc\"")));
  EXPECT_THAT(error(R"({"context": "c", "answer": "x"})"), AllOf(HasSubstr("\"answers\""), HasSubstr("map the field")));
  EXPECT_THAT(error(R"({"context": "c", "context": "d"})"), HasSubstr("\"context\" is given twice"));
  EXPECT_THAT(error(R"({"context": "c", "id": ""})"), HasSubstr("id is empty"));
  EXPECT_THAT(error(R"({"context": "c", "id": ")" + std::string(300, 'x') + "\"}"), HasSubstr("300 bytes"));
  EXPECT_THAT(error(R"({"context": ""})"), HasSubstr("context is empty"));
  EXPECT_THAT(error(R"({"context": "c", "metric": "f11", "answers": ["a"]})"), HasSubstr("\"f1\""));
  EXPECT_THAT(error(R"({"context": "c", "metric": "f1"})"), HasSubstr("no answers"));
  EXPECT_THAT(error(R"({"context": "c", "max_new_tokens": 0})"), HasSubstr("the continuation"));
  EXPECT_THAT(error(R"({"context": "c", "max_new_tokens": [1]})"), HasSubstr("max_new_tokens is a list"));
  EXPECT_THAT(error(R"({"context": "c", "evidence": [[0, 2]]})"), HasSubstr("1 code points"));
  EXPECT_THAT(error(R"({"context": "c", "evidence": [[0, 18446744073709551615]]})"), HasSubstr("evidence"));
  EXPECT_THAT(error(R"({"messages": []})"), HasSubstr("format: chat"));
  EXPECT_THAT(error(R"({"context": "c", "question": "q", "task": "all"})"), HasSubstr("stands for all tasks"));
  EXPECT_THAT(error("{\"context\": \"c\", \"id\": \"x\"}\n{\"context\": \"c\", \"id\": \"x\"}"),
              AllOf(HasSubstr("file.jsonl:2"), HasSubstr("\"x\" was there before")));
  EXPECT_THAT(error(" \n\n"), HasSubstr("holds no sample"));
  EXPECT_THAT(error("", TaskFormat::text), HasSubstr("context is empty"));
  EXPECT_THAT(error(TaskSource{scratch_ / "nowhere.txt", TaskFormat::text}), HasSubstr("nowhere.txt: no such"));
  EXPECT_THAT(error(TaskSource{scratch_.path(), TaskFormat::tasks}), HasSubstr("no such task file"));
  TaskSource mapped = source(R"({"context": "c", "gold": "x"})");
  mapped.fields = {{"answers", "golds"}};
  EXPECT_THAT(error(mapped), AllOf(HasSubstr("\"golds\", which answers is read from"), HasSubstr("\"gold\"")));
}

TEST_F(TasksTest, ChatsThatAreNoneAreRefused) {
  const auto chat = [&](const std::string& messages) {
    return error("{\"messages\": " + messages + "}", TaskFormat::chat);
  };
  EXPECT_THAT(chat("[]"), HasSubstr("messages is empty"));
  EXPECT_THAT(chat("3"), HasSubstr("messages is 3"));
  EXPECT_THAT(chat(R"([{"role": "user"}])"), HasSubstr("messages[0] has no content"));
  EXPECT_THAT(chat(R"(["hi"])"), HasSubstr("messages[0] has no role"));
  EXPECT_THAT(chat(R"([{"role": "usr", "content": "x"}])"), AllOf(HasSubstr("\"usr\""), HasSubstr("\"user\"")));
  EXPECT_THAT(chat(R"([{"role": "user", "content": null}])"), HasSubstr("messages[0].content is null"));
  EXPECT_THAT(chat(R"([{"role": "user", "content": "x"}, {"role": "system", "content": "y"}])"), HasSubstr("first"));
  EXPECT_THAT(chat(R"([{"role": "system", "content": "x"}])"), HasSubstr("the user's question"));
  EXPECT_THAT(chat(R"([{"role": "assistant", "content": "x"}])"), HasSubstr("the user's question"));
  EXPECT_THAT(chat(R"([{"role": "user", "content": ""}])"), HasSubstr("empty question"));
  EXPECT_THAT(error(R"({"messages": [{"role": "user", "content": "x"}], "evidence": []})", TaskFormat::chat),
              HasSubstr("no meaning in a chat"));
}

TEST_F(TasksTest, BytesThatAreNoTextAreRefused) {
  EXPECT_THAT(error("{\"context\": \"c\"}\n{\"context\": \"\xff\"}"),
              AllOf(HasSubstr("file.jsonl:2: byte 14 is 0xff"), HasSubstr("convert the file to UTF-8")));
  EXPECT_THAT(error("one\ntw\xc3(o", TaskFormat::text), HasSubstr("file.jsonl:2: byte 3 is 0xc3"));
  EXPECT_THAT(error("cut short \xe6\x97", TaskFormat::text), HasSubstr("UTF-8"));
  EXPECT_THAT(error("surrogate \xed\xa0\x80", TaskFormat::text), HasSubstr("UTF-8"));
  EXPECT_THAT(error(std::string("a\n\0b", 4), TaskFormat::text), HasSubstr("file.jsonl:2: holds a zero character"));
  EXPECT_THAT(error(std::string("\0{}", 3)), HasSubstr("zero character"));
  EXPECT_THAT(error("{\"context\": \"a\\u0000b\"}"), HasSubstr("context: holds a zero character"));
  EXPECT_THAT(error("{\"context\": \"\\ud800\"}"), HasSubstr("not valid JSON"));
  TaskSource bad = source("{\"context\": \"c\"}");
  bad.defaults.question = "\xff";
  EXPECT_THAT(error(bad), HasSubstr("a default: byte 1"));
}

TEST_F(TasksTest, DeepAndHugeFilesAreErrorsNotCrashes) {
  EXPECT_THAT(error("{\"max_new_tokens\": " + std::string(1'000'000, '[')), HasSubstr("nested more than 64 deep"));
  std::string objects = "{\"context\": ";
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  EXPECT_THAT(error(objects), HasSubstr("nested more than 64 deep"));
  EXPECT_THAT(error("{\"context\": 1e99999}"), HasSubstr("out of range"));
  const std::filesystem::path huge = scratch_ / "huge.txt";
  std::ofstream(huge).put('x');
  std::filesystem::resize_file(huge, (std::uintmax_t{1} << 31) + 5);  // sparse
  EXPECT_THAT(error(TaskSource{huge, TaskFormat::text}), AllOf(HasSubstr("2147483653 bytes"), HasSubstr("split it")));
  EXPECT_THAT(error(TaskSource{huge, TaskFormat::tasks}), HasSubstr("split it"));
}

// Whatever is in a file, reading it gives samples or an InputError.
RC_GTEST_PROP(TasksFuzz, DamagedLinesAreErrorsNotCrashes, ()) {
  std::string line =
      R"({"id": "s", "context": "caf\u00e9 au lait", "question": "q", "answers": ["a"], "max_new_tokens": 3, )"
      R"("metric": "f1", "evidence": [[0, 4]], "messages": [{"role": "user", "content": "x"}]})";
  const int edits = *rc::gen::inRange(1, 6);
  for (int i = 0; i < edits; ++i) {
    const auto at = *rc::gen::inRange<std::size_t>(0, line.size());
    line[at] = static_cast<char>(*rc::gen::inRange(0, 256));
  }
  const ScratchDirectory scratch;
  for (const TaskFormat format : {TaskFormat::tasks, TaskFormat::chat, TaskFormat::text}) {
    try {
      for (const TaskSample& sample : read_tasks({write_text(scratch / "f", line), format}))
        RC_ASSERT(!sample.id.empty());
    } catch (const InputError& error) {
      RC_ASSERT(std::string(error.what()).find("/f") != std::string::npos);
    }
  }
}

}  // namespace
}  // namespace depthkv
