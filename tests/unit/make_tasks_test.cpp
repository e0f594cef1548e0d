// SPDX-License-Identifier: Apache-2.0
// scripts/make-tasks: the same bytes for the same arguments, evidence that answers, and arithmetic that adds up.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <regex>
#include <set>

#include "depthkv/tasks.h"
#include "support/command.h"
#include "support/files.h"
#include "support/scratch.h"
#include "support/source.h"
#include "tracer/utf8.h"

namespace depthkv {
namespace {

using testing::HasSubstr;

const std::vector<std::string> kKinds{"single", "multikey", "multivalue", "multiquery", "vartrack", "arithmetic"};

std::int64_t words_in(const std::string& text) {
  std::istringstream stream(text);
  return std::distance(std::istream_iterator<std::string>(stream), {});
}

std::string in_code_points(const std::string& text, Span span) {
  const std::vector<std::int64_t> offsets = code_point_offsets(text);
  const auto begin = static_cast<std::size_t>(offsets.at(static_cast<std::size_t>(span.begin)));
  return text.substr(begin, static_cast<std::size_t>(offsets.at(static_cast<std::size_t>(span.end))) - begin);
}

std::vector<std::string> evidence_of(const TaskSample& sample) {
  std::vector<std::string> texts;
  for (const Span& span : sample.evidence) texts.push_back(in_code_points(sample.context, span));
  return texts;
}

class MakeTasks : public testing::Test {
 protected:
  CommandResult run(std::vector<std::string> arguments) {
    const char* python = std::getenv("DEPTHKV_PYTHON");
    arguments.insert(arguments.begin(), {python == nullptr ? "python3" : python, kSource / "scripts/make-tasks"});
    return run_command(arguments);
  }
  std::string text(const std::vector<std::string>& arguments) {
    const CommandResult result = run(arguments);
    EXPECT_EQ(result.exit_code, 0) << result.errors;
    return result.output;
  }
  std::vector<TaskSample> made(const std::vector<std::string>& arguments) {
    return read_tasks({write_text(scratch_ / "made.jsonl", text(arguments))});
  }

  ScratchDirectory scratch_;
};

TEST_F(MakeTasks, TheSameArgumentsGiveTheSameBytes) {
  const std::vector<std::string> arguments{"--words", "150", "--hops", "2", "--distractors", "1", "--values", "2"};
  const std::string first = text(arguments);
  EXPECT_EQ(first, read_text(kSource / "tests/unit/goldens/made_tasks.jsonl"))
      << "made once by scripts/make-tasks --words 150 --hops 2 --distractors 1 --values 2";
  std::vector<std::string> seeded = arguments;
  seeded.insert(seeded.end(), {"--seed", "2", "--out", scratch_ / "two.jsonl"});
  EXPECT_EQ(text(seeded), "");
  const std::string second = read_text(scratch_ / "two.jsonl");
  EXPECT_EQ(std::ranges::count(second, '\n'), std::ranges::count(first, '\n'));
  const auto contexts = [&](const std::string& lines) {
    std::set<std::string> all;
    for (const TaskSample& sample : read_tasks({write_text(scratch_ / "lines.jsonl", lines)}))
      all.insert(sample.context);
    return all;
  };
  std::set<std::string> both = contexts(first);
  both.merge(contexts(second));
  EXPECT_EQ(both.size(), 2 * kKinds.size()) << "another seed gives other texts";
}

TEST_F(MakeTasks, EveryKindIsReadAndItsEvidenceHoldsTheAnswers) {
  const std::vector<TaskSample> samples = made({"--words", "250,400", "--count", "5"});
  ASSERT_EQ(samples.size(), 2 * 5 * kKinds.size());
  std::set<std::string> seen;
  for (const TaskSample& sample : samples) {
    seen.insert(sample.task);
    const std::int64_t most = sample.id.find(".250w") != std::string::npos ? 250 : 400;
    EXPECT_LE(words_in(sample.context), most) << sample.id;
    EXPECT_GE(words_in(sample.context), most - 35) << sample.id << ": one sentence less at most";
    EXPECT_EQ(sample.license, "CC0");
    EXPECT_FALSE(sample.question.empty());
    const std::vector<std::string> evidence = evidence_of(sample);
    for (const std::string& sentence : evidence) EXPECT_TRUE(sentence.ends_with('.')) << sample.id << ": " << sentence;
    if (sample.task == "arithmetic") continue;
    EXPECT_EQ(evidence.size(), sample.answers.size());
    EXPECT_EQ(score_answer(sample.metric, fmt::format("{}", fmt::join(evidence, " ")), sample.answers), 1) << sample.id;
    std::string rest = sample.context;
    for (auto span = sample.evidence.rbegin(); span != sample.evidence.rend(); ++span)  // the text is ASCII
      rest.erase(static_cast<std::size_t>(span->begin), static_cast<std::size_t>(span->end - span->begin));
    EXPECT_EQ(score_answer(sample.metric, rest, sample.answers), 0) << sample.id << ": an answer outside of evidence";
  }
  EXPECT_EQ(seen, std::set<std::string>(kKinds.begin(), kKinds.end()));
}

TEST_F(MakeTasks, VariablesCanBeFollowedInReadingOrder) {
  const std::regex sets("Variable ([A-Z]{5}) is set to (?:the value of ([A-Z]{5})|([0-9]{5}))\\.");
  for (const TaskSample& sample : made({"--kind", "vartrack", "--hops", "6", "--words", "300", "--count", "4"})) {
    std::map<std::string, std::string> values;
    for (std::sregex_iterator it(sample.context.begin(), sample.context.end(), sets), end; it != end; ++it)
      values[(*it)[1]] = (*it)[2].matched ? values.at((*it)[2]) : (*it)[3].str();
    EXPECT_EQ(values.size(), 4U * 7U) << "three other chains";
    std::set<std::string> holders;
    for (const auto& [name, value] : values) {
      if (sample.question.find(value) != std::string::npos) holders.insert(name);
    }
    EXPECT_EQ(holders, std::set<std::string>(sample.answers.begin(), sample.answers.end())) << sample.id;
  }
}

// Values of the quantities that sentences state, worked out from their words; counts operations that were needed.
class Sums {
 public:
  explicit Sums(const std::vector<std::string>& sentences) {
    static const std::regex kStatement("The (number of .*?) is (.*)\\.");
    for (const std::string& sentence : sentences) {
      std::smatch found;
      if (!std::regex_match(sentence, found, kStatement)) throw std::runtime_error("no statement: " + sentence);
      if (!definitions_.emplace("the " + found[1].str(), found[2]).second)
        throw std::runtime_error("stated twice: " + sentence);
    }
  }

  std::int64_t value(const std::string& name) {
    if (const auto known = values_.find(name); known != values_.end()) return known->second;
    const std::string& definition = definitions_.at(name);
    static const std::regex kFrom("([0-9]+) (more than|less than|times) (.*)");
    static const std::regex kOfTwo("(.*) (plus|minus) (.*)");
    std::smatch found;
    std::int64_t result = 0;
    if (std::regex_match(definition, found, kFrom)) {
      const std::int64_t amount = std::stoll(found[1]);
      const std::int64_t first = value(found[3]);
      result = found[2] == "more than" ? first + amount : found[2] == "less than" ? first - amount : first * amount;
      ++operations_;
    } else if (std::regex_match(definition, found, kOfTwo)) {
      const std::int64_t first = value(found[1]);
      const std::int64_t second = value(found[3]);
      result = found[2] == "plus" ? first + second : first - second;
      ++operations_;
    } else {
      result = std::stoll(definition);
    }
    return values_[name] = result;
  }
  int operations() const { return operations_; }
  std::size_t used() const { return values_.size(); }

 private:
  std::map<std::string, std::string> definitions_;
  std::map<std::string, std::int64_t> values_;
  int operations_ = 0;
};

TEST_F(MakeTasks, ArithmeticAddsUpFromItsEvidenceInAsManySteps) {
  const std::regex asked("What is (the number of .*)\\? Work it out.*");
  for (const int steps : {1, 2, 5, 9}) {
    const std::vector<TaskSample> samples =
        made({"--kind", "arithmetic", "--steps", std::to_string(steps), "--words", "600", "--count", "12"});
    for (const TaskSample& sample : samples) {
      std::smatch target;
      ASSERT_TRUE(std::regex_match(sample.question, target, asked)) << sample.question;
      const std::vector<std::string> evidence = evidence_of(sample);
      Sums needed(evidence);
      EXPECT_EQ(std::vector{std::to_string(needed.value(target[1]))}, sample.answers) << sample.id;
      EXPECT_EQ(needed.operations(), steps) << sample.id;
      EXPECT_EQ(needed.used(), evidence.size()) << sample.id << ": evidence that isn't needed";
      std::vector<std::string> all;
      const std::regex sentence("[^.]+\\.");
      for (std::sregex_iterator it(sample.context.begin(), sample.context.end(), sentence), end; it != end; ++it)
        all.push_back(it->str().substr(it->str().find('T')));
      EXPECT_GT(all.size(), evidence.size() + 10);
      Sums whole(all);
      EXPECT_EQ(whole.value(target[1]), needed.value(target[1]));
    }
  }
}

TEST_F(MakeTasks, DepthPlacesTheNeedleInTheFiller) {
  const std::string filler = write_text(scratch_ / "hills.txt",
                                        "\xc3\x89t\xc3\xa9 was late. \xe2\x80\x9cWas it?\xe2\x80\x9d she asked.\n"
                                        "The number 3 bus had gone!\n\nNobody  knew\nwhy. ");
  for (const char* kind : {"single", "multikey"}) {
    const std::vector<TaskSample> samples = made({"--kind", kind, "--depth", "0,0.25,1", "--words", "200", "--count",
                                                  "2", "--filler", filler, "--distractors", "2"});
    ASSERT_EQ(samples.size(), 6U);
    for (const TaskSample& sample : samples) {
      EXPECT_THAT(sample.context, HasSubstr("Nobody knew why. \xc3\x89t\xc3\xa9 was late."));
      EXPECT_THAT(sample.source, HasSubstr("hills.txt"));
      ASSERT_EQ(sample.evidence.size(), 1U);
      EXPECT_THAT(evidence_of(sample)[0], HasSubstr("is " + sample.answers.at(0) + "."));
      const auto length = static_cast<double>(code_point_offsets(sample.context).size());
      const double depth = sample.id.find(".at0.25.") != std::string::npos ? 0.25
                           : sample.id.find(".at1.") != std::string::npos  ? 1
                                                                           : 0;
      const double where = static_cast<double>(depth == 1 ? sample.evidence[0].end : sample.evidence[0].begin) / length;
      EXPECT_NEAR(where, depth, 0.15) << sample.id;
    }
  }
}

TEST_F(MakeTasks, WhatCantBeMadeIsSaid) {
  const auto wrong = [&](const std::vector<std::string>& arguments, const std::string& part) {
    const CommandResult result = run(arguments);
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_EQ(result.output, "");
    EXPECT_THAT(result.errors, HasSubstr(part));
  };
  wrong({"--kind", "singel"}, "singel found, expected some of single");
  wrong({"--words", "10"}, "--words is 10");
  wrong({"--kind", "arithmetic", "--words", "20", "--steps", "9"}, "fewer --steps");
  wrong({"--words", "0"}, "expected a whole number from 1");
  wrong({"--words", "many"}, "whole number");
  wrong({"--depth", "0.5"}, "leave it out");
  wrong({"--kind", "single", "--depth", "2"}, "expected a share from 0 to 1");
  wrong({"--filler", scratch_ / "nowhere.txt"}, "nowhere.txt");
  wrong({"--filler", write_text(scratch_ / "empty.txt", " \n")}, "holds no text");
  wrong({"--filler", write_text(scratch_ / "latin.txt", "caf\xe9")}, "--filler");
  wrong({"--kind", "arithmetic", "--words", "200000"}, "too few for so many --words");
  EXPECT_THAT(text({"--help"}), HasSubstr("examples:"));
}

}  // namespace
}  // namespace depthkv
