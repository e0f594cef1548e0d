// SPDX-License-Identifier: Apache-2.0
// Prompts: exact segments, evidence and cuts, against plain loops over bytes and code points.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "depthkv/error.h"
#include "depthkv/tasks.h"
#include "support/tiny_model.h"
#include "tracer/truncate.h"
#include "tracer/utf8.h"

namespace depthkv {
namespace {

using testing::HasSubstr;

// Tokens of one to three bytes, wherever code points begin, as byte-level vocabularies have them. Optionally puts a
// space before every text, as some vocabularies of pieces do.
class ChunkModel : public TinyModel {
 public:
  explicit ChunkModel(std::vector<int> sizes, bool adds_space = false)
      : sizes_(std::move(sizes)), adds_space_(adds_space) {}

  std::vector<Token> tokenize(std::string_view text, bool with_bos, bool) const override {
    std::vector<Token> tokens;
    if (with_bos) tokens.push_back(0);
    const std::string spelled = (adds_space_ && !text.empty() ? " " : "") + std::string(text);
    for (std::size_t at = 0, i = 0; at < spelled.size(); ++i) {
      const std::string piece = spelled.substr(at, static_cast<std::size_t>(sizes_[i % sizes_.size()]));
      Token token = static_cast<Token>(piece.size()) << 24;
      for (std::size_t b = 0; b < piece.size(); ++b) token |= static_cast<unsigned char>(piece[b]) << (8 * b);
      tokens.push_back(token);
      at += piece.size();
    }
    return tokens;
  }

  std::string detokenize(std::span<const Token> tokens) const override {
    std::string text;
    for (const Token token : tokens)
      for (int b = 0; b < token >> 24; ++b) text += static_cast<char>((token >> (8 * b)) & 0xff);
    return text;
  }

 private:
  std::vector<int> sizes_;
  bool adds_space_;
};

const std::vector<std::string> kLetters{"a",       "b", " ", "\n", "\xc3\xa9", "\xe6\x97\xa5", "\xf0\x9f\x8c\x8d",
                                        "\xcc\x81"};

std::string random_text(std::size_t least, std::size_t most) {
  std::string text;
  const auto size = *rc::gen::inRange<std::size_t>(least, most);
  for (std::size_t i = 0; i < size; ++i) text += *rc::gen::elementOf(kLetters);
  return text;
}

ChunkModel random_model() {
  return ChunkModel(*rc::gen::nonEmpty(rc::gen::container<std::vector<int>>(rc::gen::inRange(1, 4))),
                    *rc::gen::arbitrary<bool>());
}

TaskSample random_sample() {
  TaskSample sample;
  sample.id = "s";
  sample.context = random_text(1, 60);
  sample.question = random_text(0, 10);
  const auto length = static_cast<std::int64_t>(code_point_offsets(sample.context).size()) - 1;
  const int spans = *rc::gen::inRange(0, 4);
  for (int i = 0; i < spans; ++i) {
    const auto begin = *rc::gen::inRange<std::int64_t>(0, length);
    sample.evidence.push_back({begin, *rc::gen::inRange<std::int64_t>(begin + 1, length + 1)});
  }
  return sample;
}

std::int64_t byte_of(const Prompt& prompt, std::int64_t token) {
  const auto t = static_cast<std::size_t>(token);
  return t < prompt.tokens.size() ? prompt.text_offsets[t] : static_cast<std::int64_t>(prompt.text.size());
}

std::string text_of(const Prompt& prompt, Span tokens) {
  const auto begin = static_cast<std::size_t>(byte_of(prompt, tokens.begin));
  return prompt.text.substr(begin, static_cast<std::size_t>(byte_of(prompt, tokens.end)) - begin);
}

Span all_of(const Prompt& prompt) { return {0, static_cast<std::int64_t>(prompt.tokens.size())}; }

// Per token of the whole prompt: whether it holds a byte of a span's code points. One look per byte.
std::vector<bool> evidence_by_bytes(const Prompt& whole, const TaskSample& sample) {
  const std::int64_t start = byte_of(whole, whole.segments.context.begin);
  std::vector<bool> wanted(whole.text.size(), false);
  std::int64_t code_point = -1;
  for (std::size_t i = 0; i < sample.context.size(); ++i) {
    if (!is_continuation(sample.context[i])) ++code_point;
    for (const Span& span : sample.evidence) {
      if (code_point >= span.begin && code_point < span.end) wanted[static_cast<std::size_t>(start) + i] = true;
    }
  }
  std::vector<bool> found;
  for (std::int64_t t = 0; t < all_of(whole).end; ++t) {
    bool any = false;
    for (std::int64_t b = byte_of(whole, t); b < byte_of(whole, t + 1); ++b)
      any = any || wanted[static_cast<std::size_t>(b)];
    found.push_back(any);
  }
  return found;
}

std::vector<bool> evidence_by_spans(const Prompt& prompt) {
  std::vector<bool> found(prompt.tokens.size(), false);
  for (const Span& span : prompt.evidence)
    for (std::int64_t t = span.begin; t < span.end; ++t) found[static_cast<std::size_t>(t)] = true;
  return found;
}

TEST(Prompt, PlainTextIsContextAloneAfterTheBeginToken) {
  const TinyModel model;
  TaskSample sample;
  sample.context = "Once upon a time";
  const Prompt prompt = make_prompt(model, sample);
  EXPECT_EQ(prompt.text, sample.context);
  EXPECT_EQ(prompt.segments, (Segments{{1, 17}, 17}));
  EXPECT_EQ(prompt.truncated, 0);
}

TEST(Prompt, ChatHasEverythingBeforeTheLastMessageAsContext) {
  const TinyModel model;
  TaskSample sample;
  sample.messages = {{"system", "Be brief."}, {"user", "Hi <user>!"}, {"assistant", "Yes?"}, {"user", "Why?"}};
  const Prompt prompt = make_prompt(model, sample);
  EXPECT_EQ(prompt.text, model.chat(sample.messages));
  EXPECT_EQ(model.detokenize(prompt.tokens), prompt.text);
  const Segments& segments = prompt.segments;
  EXPECT_EQ(text_of(prompt, {0, segments.context.begin}), "<system>");
  EXPECT_EQ(text_of(prompt, segments.context), "Be brief.</system><user>Hi <user>!</user><assistant>Yes?");
  EXPECT_EQ(text_of(prompt, {segments.context.end, segments.prompt_end}), "</assistant><user>Why?</user>");
  EXPECT_EQ(model.detokenize(prompt.turn_begin), "</assistant><user>");
  EXPECT_EQ(model.detokenize(prompt.turn_end), "</user>");
}

TEST(Prompt, MessageAloneIsTheContext) {
  const TinyModel model;
  TaskSample sample;
  sample.messages = {{"user", "A long text and a question."}};
  const Prompt prompt = make_prompt(model, sample);
  EXPECT_EQ(text_of(prompt, prompt.segments.context), "A long text and a question.");
  EXPECT_TRUE(prompt.turn_begin.empty());
  EXPECT_EQ(model.detokenize(prompt.turn_end), "</user>");
}

TEST(Prompt, TemplateThatDropsAMessageIsRefused) {
  class Forgetful : public TinyModel {
    std::string chat(std::span<const Message> messages) const override { return TinyModel::chat(messages.last(1)); }
  };
  TaskSample sample;
  sample.messages = {{"system", "Be brief."}, {"user", "Why?"}};
  EXPECT_THROW(make_prompt(Forgetful(), sample), InputError);
}

TEST(Prompt, TokenizerThatChangesTheTextHasNoEvidenceAndNoCuts) {
  class Lowering : public TinyModel {
    std::vector<Token> tokenize(std::string_view text, bool with_bos, bool special) const override {
      std::string lower(text);
      for (char& c : lower) c = static_cast<char>(std::tolower(c));
      return TinyModel::tokenize(lower, with_bos, special);
    }
  };
  TaskSample sample;
  sample.context = "Some Text";
  EXPECT_NO_THROW(make_prompt(Lowering(), sample));
  EXPECT_THROW(make_prompt(Lowering(), sample, {Truncate::end, 5}), Error);
  sample.evidence = {{0, 1}};
  EXPECT_THROW(make_prompt(Lowering(), sample), Error);
}

TEST(Truncation, ErrorsSayWhatFitsAndWhatToDo) {
  const TinyModel model;
  TaskSample sample;
  sample.id = "s1";
  sample.where = "f.jsonl:3";
  sample.context = std::string(50, 'x');
  sample.question = "Why?";
  const auto message = [&](const Truncation& truncation) {
    try {
      make_prompt(model, sample, truncation);
    } catch (const InputError& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(message({Truncate::error, 40}),
              AllOf(HasSubstr("f.jsonl:3: sample s1 has 70 prompt tokens"), HasSubstr("40"), HasSubstr("truncate")));
  EXPECT_THAT(message({Truncate::middle, 20}), AllOf(HasSubstr("20 prompt tokens beside"), HasSubstr("the question")));
  EXPECT_EQ(message({Truncate::middle, 21}), "no error");
  EXPECT_EQ(message({Truncate::error, 70}), "no error");
}

TEST(Truncation, KeepsBothEndsOrTheBeginning) {
  const TinyModel model;
  TaskSample sample;
  sample.context = "0123456789";
  sample.evidence = {{0, 2}, {4, 6}, {2, 9}, {8, 10}};
  const Prompt middle = make_prompt(model, sample, {Truncate::middle, 6});
  EXPECT_EQ(middle.text, "01289");
  EXPECT_EQ(middle.truncated, 5);
  EXPECT_THAT(middle.evidence, testing::ElementsAre(Span{1, 3}, Span{3, 5}, Span{4, 6}));
  const Prompt end = make_prompt(model, sample, {Truncate::end, 6});
  EXPECT_EQ(end.text, "01234");
  EXPECT_THAT(end.evidence, testing::ElementsAre(Span{1, 3}, Span{5, 6}, Span{3, 6}));
}

RC_GTEST_PROP(PromptProperty, PartsAreExactAndEvidenceIsThatOfTheBytes, ()) {
  const ChunkModel model = random_model();
  const TaskSample sample = random_sample();
  const Prompt prompt = make_prompt(model, sample);
  RC_ASSERT(text_of(prompt, prompt.segments.context) == sample.context);
  RC_ASSERT(std::is_sorted(prompt.text_offsets.begin(), prompt.text_offsets.end()));
  RC_ASSERT(prompt.text_offsets.size() == prompt.tokens.size());
  RC_ASSERT(evidence_by_spans(prompt) == evidence_by_bytes(prompt, sample));
}

// What truncation should remove: as many tokens of both ends (or of the beginning) as fit, but no part of a code point.
Span expected_cut(const Prompt& whole, const Truncation& truncation) {
  const Span context = whole.segments.context;
  const std::int64_t kept = truncation.limit - all_of(whole).end + context.end - context.begin;
  if (kept >= context.end - context.begin) return {context.end, context.end};
  std::int64_t tail = truncation.policy == Truncate::middle ? std::max<std::int64_t>(0, kept / 2) : 0;
  std::int64_t head = std::max<std::int64_t>(0, kept - tail);
  const auto is_whole = [&](Span tokens) {
    const std::string text = text_of(whole, tokens);
    return valid_utf8(text) == text.size();
  };
  while (!is_whole({context.begin, context.begin + head})) --head;
  while (!is_whole({context.end - tail, context.end})) --tail;
  return {context.begin + head, context.end - tail};
}

template <class T>
std::vector<T> without(std::vector<T> list, Span cut) {
  list.erase(list.begin() + cut.begin, list.begin() + cut.end);
  return list;
}

RC_GTEST_PROP(PromptProperty, CutsKeepToTheLimitAndToWholeCodePoints, ()) {
  const ChunkModel model = random_model();
  const TaskSample sample = random_sample();
  const Prompt whole = make_prompt(model, sample);
  const Truncation truncation{*rc::gen::element(Truncate::middle, Truncate::end),
                              *rc::gen::inRange<std::int64_t>(1, all_of(whole).end + 2)};
  const Span cut = expected_cut(whole, truncation);
  if (cut == whole.segments.context) {
    RC_ASSERT_THROWS_AS(make_prompt(model, sample, truncation), InputError);
    return;
  }
  const Prompt prompt = make_prompt(model, sample, truncation);
  RC_ASSERT(all_of(prompt).end <= truncation.limit);
  RC_ASSERT(prompt.truncated == cut.end - cut.begin);
  RC_ASSERT(prompt.tokens == without(whole.tokens, cut));
  RC_ASSERT(prompt.text == text_of(whole, {0, cut.begin}) + text_of(whole, {cut.end, all_of(whole).end}));
  RC_ASSERT(valid_utf8(prompt.text) == prompt.text.size());
  RC_ASSERT(evidence_by_spans(prompt) == without(evidence_by_bytes(whole, sample), cut));
  RC_ASSERT(prompt.segments.context.begin == whole.segments.context.begin);
  RC_ASSERT(prompt.segments.context.end == whole.segments.context.end - prompt.truncated);
  RC_ASSERT(prompt.segments.prompt_end == all_of(prompt).end);
  for (std::int64_t t = 0; t < all_of(prompt).end; ++t) {  // offsets are those of the kept pieces
    const std::string piece = model.detokenize(std::span(&prompt.tokens[static_cast<std::size_t>(t)], 1));
    const std::string text = text_of(prompt, {t, t + 1});
    RC_ASSERT(text == piece || " " + text == piece);
  }
}

RC_GTEST_PROP(PromptProperty, CuttingTwiceIsCuttingOnce, ()) {
  const ChunkModel model = random_model();
  const Truncation truncation{*rc::gen::element(Truncate::middle, Truncate::end),
                              *rc::gen::inRange<std::int64_t>(1, 90)};
  Prompt once;
  try {
    once = make_prompt(model, random_sample(), truncation);
  } catch (const InputError&) {
    return;
  }
  Prompt twice = once;
  truncate_context(twice, truncation, "s");
  RC_ASSERT(twice.tokens == once.tokens);
  RC_ASSERT(twice.text == once.text);
  RC_ASSERT(twice.text_offsets == once.text_offsets);
  RC_ASSERT(twice.evidence == once.evidence);
  RC_ASSERT(twice.truncated == once.truncated);
}

}  // namespace
}  // namespace depthkv
