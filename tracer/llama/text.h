// SPDX-License-Identifier: Apache-2.0
// Text to tokens and back, by the model's own tokenizer and chat template.
#pragma once
#include <llama.h>

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "depthkv/model.h"

namespace depthkv {

std::vector<Token> tokenize_text(const llama_vocab* vocab, std::string_view text, bool with_bos, bool parse_special);
std::string text_of(const llama_vocab* vocab, std::span<const Token> tokens);
std::string chat_prompt(const llama_model* model, std::span<const Message> messages);
// The most likely token, the lowest of them on ties. NaN throws Error.
Token greedy(std::span<const float> logits);

}  // namespace depthkv
