// SPDX-License-Identifier: Apache-2.0
// The real model's tokenizer and chat template.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "depthkv/tasks.h"
#include "llama/recorded.h"

namespace depthkv {
namespace {

using testing::HasSubstr;

const Message kTalk[] = {{"system", "Be brief."}, {"user", "Hi."}, {"assistant", "Hello!"}, {"user", "What is it?"}};

TEST(LlamaText, RoundTripsBytesAndSpecialTokens) {
  const auto model = open_real_model(64);
  for (const std::string& text : {std::string("plain words"), std::string(" leading  and\ttabs\n\n"),
                                  std::string("caf\xC3\xA9 \xE6\x97\xA5\xE6\x9C\xAC"),
                                  std::string("<|im_start|>user\nhi<|im_end|>"), std::string()}) {
    for (const bool special : {true, false}) {
      const auto tokens = model->tokenize(text, false, special);
      EXPECT_EQ(model->detokenize(tokens), text);
    }
  }
  const std::string marker = "<|im_start|>";
  EXPECT_EQ(model->tokenize(marker, false, true).size(), 1U);
  EXPECT_GT(model->tokenize(marker, false, false).size(), 1U);
  EXPECT_THAT(ask(*model, "What is it?"), HasSubstr("What is it?"));
  EXPECT_NE(ask(*model, "What is it?"), "What is it?");
}

TEST(LlamaText, ChatFramesEveryMessageInOrder) {
  const auto model = open_real_model(64);
  EXPECT_EQ(model->chat(kTalk),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi.<|im_end|>\n<|im_start|>assistant\nHello!"
            "<|im_end|>\n<|im_start|>user\nWhat is it?<|im_end|>\n<|im_start|>assistant\n");
}

TEST(LlamaText, PromptOfAChatHasTheTokensOfItsText) {
  const auto model = open_real_model(64);
  TaskSample sample;
  sample.messages = {std::begin(kTalk), std::end(kTalk)};
  const Prompt prompt = make_prompt(*model, sample);
  EXPECT_EQ(prompt.text, model->chat(kTalk));
  EXPECT_EQ(model->detokenize(prompt.tokens), prompt.text);
  const auto byte = [&](std::int64_t token) {
    return static_cast<std::size_t>(prompt.text_offsets[static_cast<std::size_t>(token)]);
  };
  const Span context = prompt.segments.context;
  EXPECT_EQ(prompt.text.substr(byte(context.begin), byte(context.end) - byte(context.begin)),
            "Be brief.<|im_end|>\n<|im_start|>user\nHi.<|im_end|>\n<|im_start|>assistant\nHello!");
}

}  // namespace
}  // namespace depthkv
