// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include "depthkv/error.h"
#include "depthkv/tasks.h"

namespace depthkv {
namespace {

// Stands for the message while the template is rendered, so that
// a text that looks like a template can't confuse the split.
constexpr std::string_view kPlaceholder = "\x01message\x01";
constexpr std::string_view kBetween = "\n\n";  // of context and question

struct Frame {
  std::string before;
  std::string after;
};

Frame frame_of(const Model& model) {
  const std::string framed = model.chat(kPlaceholder);
  const auto at = framed.find(kPlaceholder);
  if (at == std::string::npos)
    throw Error(fmt::format("the chat template of {} drops the user's message", model.card().name));
  return {framed.substr(0, at), framed.substr(at + kPlaceholder.size())};
}

// Byte offset of every code point, and the end.
std::vector<std::int64_t> code_point_offsets(std::string_view text) {
  std::vector<std::int64_t> offsets;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xc0U) != 0x80U) offsets.push_back(static_cast<std::int64_t>(i));
  }
  offsets.push_back(static_cast<std::int64_t>(text.size()));
  return offsets;
}

class PromptBuilder {
 public:
  explicit PromptBuilder(const Model& model) : model_(model) {}

  void add(std::string_view part, bool is_frame) {
    if (part.empty() && !prompt_.tokens.empty()) return;
    const std::vector<Token> tokens = model_.tokenize(part, prompt_.tokens.empty(), is_frame);
    std::size_t offset = 0;
    for (const Token token : tokens) {
      prompt_.text_offsets.push_back(static_cast<std::int32_t>(prompt_.text.size() + std::min(offset, part.size())));
      // A token whose text isn't next in the part (a begin token, a space that the tokenizer adds) takes no room in it.
      const std::string piece = model_.detokenize(std::span(&token, 1));
      if (part.substr(std::min(offset, part.size())).starts_with(piece)) offset += piece.size();
    }
    prompt_.tokens.insert(prompt_.tokens.end(), tokens.begin(), tokens.end());
    prompt_.text += part;
  }

  std::int64_t size() const { return static_cast<std::int64_t>(prompt_.tokens.size()); }
  Prompt& prompt() { return prompt_; }

 private:
  const Model& model_;
  Prompt prompt_;
};

// Tokens of the context whose bytes overlap a span.
std::vector<Span> evidence_tokens(const Prompt& prompt, std::string_view context, std::int64_t context_byte,
                                  const std::vector<Span>& spans) {
  const std::vector<std::int64_t> bytes = code_point_offsets(context);
  const Span inside = prompt.segments.context;
  const auto begins = [&](std::int64_t t) {
    return static_cast<std::int64_t>(prompt.text_offsets[static_cast<std::size_t>(t)]);
  };
  const auto ends = [&](std::int64_t t) {
    return t + 1 < inside.end ? begins(t + 1) : context_byte + static_cast<std::int64_t>(context.size());
  };
  std::vector<Span> found;
  for (const Span& span : spans) {
    const std::int64_t from = context_byte + bytes[static_cast<std::size_t>(span.begin)];
    const std::int64_t to = context_byte + bytes[static_cast<std::size_t>(span.end)];
    Span tokens{inside.end, inside.begin};
    for (std::int64_t t = inside.begin; t < inside.end; ++t) {
      if (begins(t) >= to || ends(t) <= from) continue;
      tokens.begin = std::min(tokens.begin, t);
      tokens.end = t + 1;
    }
    if (tokens.begin < tokens.end) found.push_back(tokens);
  }
  return found;
}

}  // namespace

Prompt make_prompt(const Model& model, const TaskSample& sample) {
  const Frame frame = sample.question.empty() ? Frame{} : frame_of(model);
  PromptBuilder builder(model);
  if (!frame.before.empty()) builder.add(frame.before, true);
  const auto context_byte = static_cast<std::int64_t>(builder.prompt().text.size());
  Segments segments;
  segments.context.begin = builder.size();
  builder.add(sample.context, false);
  segments.context.end = builder.size();
  if (!sample.question.empty()) builder.add(std::string(kBetween) + sample.question, false);
  builder.add(frame.after, true);
  segments.prompt_end = builder.size();
  Prompt prompt = std::move(builder.prompt());
  prompt.segments = segments;
  prompt.evidence = evidence_tokens(prompt, sample.context, context_byte, sample.evidence);
  return prompt;
}

}  // namespace depthkv
