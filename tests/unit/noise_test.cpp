// SPDX-License-Identifier: Apache-2.0
// Typing mistakes: what they touch, what they leave.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <sstream>

#include "depthkv/representations.h"
#include "tracer/utf8.h"

namespace depthkv {
namespace {

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

std::string text_of(int words) {
  std::string text;
  for (int i = 0; i < words; ++i) text += i % 3 == 0 ? "the " : "lighthouse\n";
  return text;
}

TEST(Noise, IsGivenByTheSeed) {
  const std::string text = text_of(200);
  EXPECT_EQ(noised(text, {}, 4), noised(text, {}, 4));
  EXPECT_NE(noised(text, {}, 4), noised(text, {}, 5));
  EXPECT_NE(noised(text, {}, 4), text);
}

TEST(Noise, TouchesTheShareAskedFor) {
  const std::string text = text_of(300);  // 200 words of ten letters
  const std::vector<std::string> words = words_of(noised(text, {0.1, 0.2}, 1));
  EXPECT_EQ(words.size(), 320U);  // 20 split in two
  EXPECT_EQ(std::ranges::count(words, "the"), 100);
  const auto whole = std::ranges::count(words, "lighthouse");
  EXPECT_GE(whole, 140);  // at most 20 split and about 40 with other letters
  EXPECT_LE(whole, 160);
}

TEST(Noise, LeavesShortWordsAndBlanksAlone) {
  for (const char* text : {"", " ", "a b c\n\n the end", "\t\n"}) EXPECT_EQ(noised(text, {1, 1}, 1), text);
}

RC_GTEST_PROP(Noise, KeepsTextUtf8, (std::uint64_t seed)) {
  const std::string pieces[] = {"Straße", "日本語の文", "naïveté", "x", " ", "\n", "word", "🙂🙂🙂🙂", "кошка"};
  std::string text;
  const auto chosen =
      *rc::gen::container<std::vector<std::size_t>>(rc::gen::inRange<std::size_t>(0, std::size(pieces)));
  for (const std::size_t i : chosen) text += pieces[i];
  const std::string changed = noised(text, {0.5, 0.5}, seed);
  RC_ASSERT(valid_utf8(changed) == changed.size());
}

}  // namespace
}  // namespace depthkv
