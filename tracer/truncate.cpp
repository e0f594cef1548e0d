// SPDX-License-Identifier: Apache-2.0
#include "tracer/truncate.h"

#include <fmt/format.h>

#include "depthkv/error.h"
#include "tracer/utf8.h"

namespace depthkv {
namespace {

constexpr const char* kMost = "the most is {} (max_prompt, or what the model's context leaves beside the answer)";

std::int64_t byte_of(const Prompt& prompt, std::int64_t token) {
  const auto t = static_cast<std::size_t>(token);
  return t < prompt.tokens.size() ? prompt.text_offsets[t] : static_cast<std::int64_t>(prompt.text.size());
}

// Whether a code point goes on from the token before.
bool splits_code_point(const Prompt& prompt, std::int64_t token) {
  const auto byte = static_cast<std::size_t>(byte_of(prompt, token));
  return byte < prompt.text.size() && is_continuation(prompt.text[byte]);
}

// The tokens to remove so that at most `kept` of the context stay, kept >= 1.
Span choose_cut(const Prompt& prompt, Truncate policy, std::int64_t kept) {
  const Span context = prompt.segments.context;
  const std::int64_t tail = policy == Truncate::middle ? kept / 2 : 0;
  Span cut{context.begin + kept - tail, context.end - tail};
  while (cut.begin > context.begin && splits_code_point(prompt, cut.begin)) --cut.begin;
  while (cut.end < context.end && splits_code_point(prompt, cut.end)) ++cut.end;
  return cut;
}

template <class T>
void erase(std::vector<T>& list, Span positions) {
  list.erase(list.begin() + positions.begin, list.begin() + positions.end);
}

void remove(Prompt& prompt, Span cut) {
  const std::int64_t first = byte_of(prompt, cut.begin);
  const std::int64_t bytes = byte_of(prompt, cut.end) - first;
  prompt.text.erase(static_cast<std::size_t>(first), static_cast<std::size_t>(bytes));
  erase(prompt.tokens, cut);
  erase(prompt.text_offsets, cut);
  for (std::size_t t = static_cast<std::size_t>(cut.begin); t < prompt.text_offsets.size(); ++t)
    prompt.text_offsets[t] -= static_cast<std::int32_t>(bytes);

  const std::int64_t removed = cut.end - cut.begin;
  prompt.truncated += removed;
  prompt.segments.context.end -= removed;
  prompt.segments.prompt_end -= removed;
  const auto moved = [&](std::int64_t token) {
    return token >= cut.end ? token - removed : std::min(token, cut.begin);
  };
  for (Span& span : prompt.evidence) span = {moved(span.begin), moved(span.end)};
  std::erase_if(prompt.evidence, [](const Span& span) { return span.begin == span.end; });
}

}  // namespace

void truncate_context(Prompt& prompt, const Truncation& truncation, const std::string& who) {
  const Span context = prompt.segments.context;
  const auto size = static_cast<std::int64_t>(prompt.tokens.size());
  if (size <= truncation.limit) return;
  const std::string most = fmt::format(kMost, truncation.limit);
  if (truncation.policy == Truncate::error) {
    throw InputError(fmt::format("{} has {} prompt tokens, {}; shorten it, or have it cut with truncate: middle or end",
                                 who, size, most));
  }
  const std::int64_t others = size - (context.end - context.begin);
  const std::int64_t kept = truncation.limit - others;
  const Span cut = kept < 1 ? context : choose_cut(prompt, truncation.policy, kept);
  if (cut == context) {
    throw InputError(
        fmt::format("{} has {} prompt tokens beside its context, which are never cut, and {}: nothing "
                    "would be left of the context; shorten the question",
                    who, others, most));
  }
  remove(prompt, cut);
}

}  // namespace depthkv
