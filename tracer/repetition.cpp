// SPDX-License-Identifier: Apache-2.0
#include "tracer/repetition.h"

#include <fmt/format.h>

#include <algorithm>

#include "depthkv/error.h"

namespace depthkv {
namespace {

constexpr std::int64_t kTail = 8;         // tokens of the chunk before that say where the next one starts
constexpr std::int64_t kLeastChunk = 64;  // less would mostly feed requests

// The words are those of the method: others would have the model attend elsewhere.
constexpr const char* kFirst = "Repeat the previous context exactly.";
constexpr const char* kLater = "Repeat the part of the previous context exactly, starting with";

std::int64_t size_of(const std::vector<Token>& tokens) { return static_cast<std::int64_t>(tokens.size()); }

void append(std::vector<Token>& tokens, const std::vector<Token>& more) {
  tokens.insert(tokens.end(), more.begin(), more.end());
}

// Requests in the user's turn, which the context may have begun.
class Requests {
 public:
  Requests(const Model& model, const Prompt& prompt) : prompt_(prompt), end_(prompt.turn_end) {
    const std::string between = prompt.turn_begin.empty() ? "\n\n" : "";
    first_ = model.tokenize(between + kFirst, false, false);
    later_ = model.tokenize(between + kLater, false, false);
    if (end_.empty()) end_ = model.tokenize("\n", false, false);
  }

  std::int64_t longest() const {
    return size_of(prompt_.turn_begin) + std::max(size_of(first_), size_of(later_) + kTail) + size_of(end_);
  }

  std::vector<Token> before(const Span& chunk) const {
    std::vector<Token> tokens = prompt_.turn_begin;
    const std::int64_t begin = prompt_.segments.context.begin;
    append(tokens, chunk.begin == begin ? first_ : later_);
    for (std::int64_t j = std::max(begin, chunk.begin - kTail); j < chunk.begin; ++j)
      tokens.push_back(prompt_.tokens[static_cast<std::size_t>(j)]);
    append(tokens, end_);
    return tokens;
  }

 private:
  const Prompt& prompt_;
  std::vector<Token> first_, later_, end_;
};

}  // namespace

std::int64_t end_of(std::span<const Passage> passages) {
  std::int64_t end = 0;
  for (const Passage& passage : passages) end = std::max(end, passage.behind + size_of(passage.tokens));
  return end;
}

Repetition make_repetition(const Model& model, const Prompt& prompt, const std::string& where, std::int64_t length) {
  const Span context = prompt.segments.context;
  const Requests requests(model, prompt);
  const std::int64_t left = model.card().context_length - context.end;
  const std::int64_t room = left - requests.longest();
  if (room < std::min(kLeastChunk, context.end - context.begin)) {
    throw InputError(fmt::format(
        "{}: the model's context leaves {} tokens behind the prompt's, repeating it in parts takes {} or "
        "more; cut the prompt (truncate, max_prompt), or record without {}",
        where, std::max<std::int64_t>(left, 0), requests.longest() + kLeastChunk, to_string(Channel::repeat_max)));
  }
  Repetition repetition;
  const std::int64_t step = std::min(length, room);
  for (std::int64_t begin = context.begin; begin < context.end; begin += step) {
    const Span chunk{begin, std::min(begin + step, context.end)};
    Passage passage{context.end, requests.before(chunk)};
    passage.tokens.insert(passage.tokens.end(), prompt.tokens.begin() + chunk.begin, prompt.tokens.begin() + chunk.end);
    repetition.chunks.push_back(chunk);
    repetition.passages.push_back(std::move(passage));
  }
  return repetition;
}

}  // namespace depthkv
