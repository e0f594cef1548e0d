// SPDX-License-Identifier: Apache-2.0
// Scores of answers against tables that scores/reference.py makes by the field's implementations.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "depthkv/error.h"
#include "depthkv/tasks.h"
#include "replay/porter.h"
#include "replay/words.h"
#include "support/files.h"
#include "support/source.h"

namespace depthkv {
namespace {

using testing::ElementsAre;

const std::filesystem::path kTables = kSource / "tests/unit/scores";

std::string from_hex(const std::string& digits) {
  std::string bytes;
  for (std::size_t i = 0; i < digits.size(); i += 2)
    bytes += static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16));
  return bytes;
}

TEST(TaskScores, EqualTheReferenceImplementations) {
  std::istringstream table(read_text(kTables / "cases.jsonl"));
  std::set<std::string> seen;
  int cases = 0;
  for (std::string line; std::getline(table, line); ++cases) {
    const nlohmann::json row = nlohmann::json::parse(line);
    const std::string output = row.contains("bytes") ? from_hex(row.at("bytes")) : row.at("output").get<std::string>();
    const auto references = row.at("references").get<std::vector<std::string>>();
    for (const auto& [metric, value] : row.at("values").items()) {
      EXPECT_EQ(score_answer(metric, output, references), value.get<double>()) << metric << " of " << line;
      seen.insert(metric);
    }
  }
  EXPECT_GE(cases, 150);
  for (const std::string& metric : metric_names())
    EXPECT_EQ(seen.contains(metric), is_text_metric(metric)) << metric << " has to be in the table if it scores a text";
}

TEST(TaskScores, StemsAreNltks) {
  std::istringstream table(read_text(kTables / "stems.csv"));
  std::string line;
  std::getline(table, line);
  ASSERT_EQ(line, "word,stem");
  int words = 0;
  for (; std::getline(table, line); ++words) {
    const std::size_t comma = line.find(',');
    EXPECT_EQ(porter_stem(line.substr(0, comma)), line.substr(comma + 1)) << line;
  }
  EXPECT_GT(words, 1000);
}

TEST(TaskScores, WordsAreCutWherePythonCutsThem) {
  EXPECT_THAT(squad_words("The  cat\u00a0sat\u3000on a\u0301\u2029THE-mat."),
              ElementsAre("cat", "sat", "on", "\u0301", "themat"));
  EXPECT_THAT(rouge_words("It's caf\u00e9 No.2, \u212a", false), ElementsAre("it", "s", "caf", "no", "2", "k"));
  EXPECT_THAT(rouge_words("was running", true), ElementsAre("was", "run"));
  EXPECT_THAT(plain_words(" a,b\x1f\xff "), ElementsAre("a,b", "\ufffd"));
  EXPECT_TRUE(squad_words("").empty() && rouge_words("?", true).empty() && plain_words("\n").empty());
}

TEST(TaskScores, WhatCantBeScoredIsAnError) {
  const std::vector<std::string> one{"a"};
  EXPECT_THROW(score_answer("nll", "a", one), Error);
  EXPECT_THROW(score_answer("none", "a", one), Error);
  EXPECT_THROW(score_answer("rouge3", "a", one), Error);
  for (const std::string& metric : metric_names()) EXPECT_THROW(score_answer(metric, "a", {}), Error) << metric;
}

std::string drawn_text() {
  static const std::vector<std::string> kParts{" ",      "a",   "the", "cat", "Cats", "\n", "\xc3",  "\xa9",
                                               "\u03a3", "1,0", "A",   "-",   ".",    "00", "\u3000"};
  std::string text;
  for (const auto part : *rc::gen::container<std::vector<int>>(rc::gen::inRange(0, static_cast<int>(kParts.size()))))
    text += kParts[static_cast<std::size_t>(part)];
  return text;
}

// Whatever the texts are, bytes that aren't UTF-8 included.
RC_GTEST_PROP(TaskScores, LieWithinBoundsAndAreBestForTheReferenceItself, ()) {
  const std::string output = drawn_text();
  const std::vector<std::string> references{drawn_text(), drawn_text()};
  const std::vector<std::string> first{references[0]};
  for (const std::string& metric : metric_names()) {
    if (!is_text_metric(metric)) continue;
    const double score = score_answer(metric, output, references);
    RC_ASSERT(std::isfinite(score) && score >= 0);
    if (metric == "length_ratio") continue;
    RC_ASSERT(score <= 1);
    if (metric == "choice" || metric == "exact_number") continue;  // one letter or number decides, if there is one
    // Another reference helps, but for a share of all, and where SQuAD drops a first one that has no words.
    const bool dropped = (metric == "f1" || metric == "exact_match") && squad_words(references[0]).empty();
    if (metric != "string_match_all" && !dropped) RC_ASSERT(score >= score_answer(metric, output, first));
    const double own = score_answer(metric, references[0], first);
    RC_ASSERT(own == 1 || (metric.starts_with("rouge") && own == 0));  // 0: no word, or no pair of words
  }
}

// The textbook's recursion for the longest common subsequence, over all choices.
std::size_t common_by_hand(const Words& a, const Words& b, std::size_t i, std::size_t j) {
  if (i == a.size() || j == b.size()) return 0;
  if (a[i] == b[j]) return 1 + common_by_hand(a, b, i + 1, j + 1);
  return std::max(common_by_hand(a, b, i + 1, j), common_by_hand(a, b, i, j + 1));
}

RC_GTEST_PROP(TaskScores, RougeLCountsTheLongestCommonSubsequence, ()) {
  const auto text = [] {
    std::string words;
    const int count = *rc::gen::inRange(1, 9);
    for (int i = 0; i < count; ++i) words += std::string(1, *rc::gen::elementOf(std::string("abc"))) + " ";
    return words;
  };
  const std::string output = text();
  const std::string reference = text();
  const Words a = plain_words(output);
  const Words b = plain_words(reference);
  const auto common = static_cast<double>(common_by_hand(a, b, 0, 0));
  const double expected = 2 * common / static_cast<double>(a.size() + b.size());
  RC_ASSERT(std::abs(score_answer("rougeL", output, std::vector{reference}) - expected) < 1e-12);
}

}  // namespace
}  // namespace depthkv
