// SPDX-License-Identifier: Apache-2.0
#include "tracer/llama/text.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "depthkv/error.h"

namespace depthkv {
namespace {

// The engine asserts, that is aborts, on vocabularies without text.
void check_has_text(const llama_vocab* vocab) {
  if (llama_vocab_type(vocab) == LLAMA_VOCAB_TYPE_NONE)
    throw Error(
        "the model file has no tokenizer, text cannot be turned into tokens or back; use a model file with a "
        "vocabulary");
}

void check_length(std::string_view text) {
  if (text.size() > std::numeric_limits<std::int32_t>::max() / 4)
    throw InputError(
        fmt::format("a text of {} bytes was given to the tokenizer, at most 512 MiB is possible", text.size()));
}

std::string without_template(std::span<const Message> messages) {
  std::string text;
  for (const Message& message : messages) text += (text.empty() ? "" : "\n\n") + message.content;
  return text;
}

}  // namespace

std::vector<Token> tokenize_text(const llama_vocab* vocab, std::string_view text, bool with_bos, bool parse_special) {
  check_has_text(vocab);
  check_length(text);
  std::vector<Token> tokens;
  // Not the engine's own flag, which would also add an end token for some models.
  const Token bos = llama_vocab_bos(vocab);
  if (with_bos && bos != LLAMA_TOKEN_NULL && llama_vocab_get_add_bos(vocab)) tokens.push_back(bos);
  if (text.empty()) return tokens;

  const std::size_t head = tokens.size();
  tokens.resize(head + text.size() + 8);
  const auto run = [&] {
    return llama_tokenize(vocab, text.data(), static_cast<std::int32_t>(text.size()), tokens.data() + head,
                          static_cast<std::int32_t>(tokens.size() - head), false, parse_special);
  };
  std::int32_t count = run();
  if (count < 0 && count != std::numeric_limits<std::int32_t>::min()) {
    tokens.resize(head + static_cast<std::size_t>(-count));
    count = run();
  }
  if (count < 0) throw Error(fmt::format("the engine could not tokenize a text of {} bytes", text.size()));
  tokens.resize(head + static_cast<std::size_t>(count));
  return tokens;
}

std::string text_of(const llama_vocab* vocab, std::span<const Token> tokens) {
  check_has_text(vocab);
  std::string text;
  std::vector<char> piece(64);
  for (const Token token : tokens) {
    if (token < 0 || token >= llama_vocab_n_tokens(vocab))
      throw InputError(
          fmt::format("token {} is outside the model's vocabulary of {}", token, llama_vocab_n_tokens(vocab)));
    // Piece by piece: the engine's own detokenizer tidies spaces, and the bytes would no longer add up.
    const auto run = [&] {
      return llama_token_to_piece(vocab, token, piece.data(), static_cast<std::int32_t>(piece.size()), 0, true);
    };
    std::int32_t length = run();
    if (length < 0) {
      piece.resize(static_cast<std::size_t>(-length));
      length = run();
    }
    if (length < 0) throw Error(fmt::format("the engine has no text for token {}", token));
    text.append(piece.data(), static_cast<std::size_t>(length));
  }
  return text;
}

std::string chat_prompt(const llama_model* model, std::span<const Message> messages) {
  const char* chat_template = llama_model_chat_template(model, nullptr);
  if (chat_template == nullptr) return without_template(messages);
  std::vector<llama_chat_message> turns;
  std::size_t size = 256;  // room for the template's own text, mostly
  for (const Message& message : messages) {
    if (message.content.find('\0') != std::string::npos)
      throw InputError("a message holds a NUL byte, which chat templates cannot carry; remove it from the task's text");
    check_length(message.content);
    turns.push_back({message.role.c_str(), message.content.c_str()});
    size += 2 * (message.role.size() + message.content.size());
  }
  std::string text(size, '\0');
  const auto run = [&] {
    return llama_chat_apply_template(chat_template, turns.data(), turns.size(), true, text.data(),
                                     static_cast<std::int32_t>(text.size()));
  };
  std::int32_t length = run();
  if (length > static_cast<std::int32_t>(text.size())) {
    text.resize(static_cast<std::size_t>(length));
    length = run();
  }
  if (length < 0)
    throw Error(
        "the engine does not know the chat template of this model; use a model whose template is one of its built-in "
        "ones");
  text.resize(static_cast<std::size_t>(length));
  return text;
}

Token greedy(std::span<const float> logits) {
  std::size_t best = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i]))
      throw Error(fmt::format("the model gave NaN as the logit of token {}; its file may be damaged", i));
    if (logits[i] > logits[best]) best = i;
  }
  return static_cast<Token>(best);
}

}  // namespace depthkv
