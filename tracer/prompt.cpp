// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include "depthkv/error.h"
#include "depthkv/tasks.h"
#include "tracer/truncate.h"
#include "tracer/utf8.h"

namespace depthkv {
namespace {

constexpr std::string_view kBetween = "\n\n";  // of context and question

struct Part {
  std::string text;
  bool is_frame = false;  // of the chat template: its markers are special tokens
};

struct Layout {
  std::vector<Part> parts;
  std::size_t context_begin = 0;  // of parts
  std::size_t context_end = 0;
  std::size_t question = 0;  // what the user says last, or where that begins, the end of it
};

// What the template puts before, between and after the contents of messages with these roles. Short stand-ins are
// rendered instead of the contents, so that a text that looks like a template can't confuse the split.
std::vector<std::string> frames_of(const Model& model, const std::vector<Message>& messages) {
  const auto stand_in = [](std::size_t i) { return fmt::format("\x01message {}\x01", i); };
  std::vector<Message> rendered;
  for (std::size_t i = 0; i < messages.size(); ++i) rendered.push_back({messages[i].role, stand_in(i)});
  const std::string framed = model.chat(rendered);
  std::vector<std::string> frames;
  std::size_t from = 0;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const std::size_t at = framed.find(stand_in(i), from);
    if (at == std::string::npos) {
      throw InputError(fmt::format("the chat template of {} drops or moves message {} of {} ({}); leave it out",
                                   model.card().name, i + 1, messages.size(), messages[i].role));
    }
    frames.push_back(framed.substr(from, at - from));
    from = at + stand_in(i).size();
  }
  frames.push_back(framed.substr(from));
  return frames;
}

Layout layout_of_chat(const Model& model, const std::vector<Message>& messages) {
  const std::vector<std::string> frames = frames_of(model, messages);
  Layout layout{{{frames[0], true}}, 1, std::max<std::size_t>(2, 2 * messages.size() - 2), 2 * messages.size() - 1};
  for (std::size_t i = 0; i < messages.size(); ++i) {
    layout.parts.push_back({messages[i].content, false});
    layout.parts.push_back({frames[i + 1], true});
  }
  return layout;
}

Layout layout_of(const Model& model, const TaskSample& sample) {
  if (!sample.messages.empty()) return layout_of_chat(model, sample.messages);
  if (sample.question.empty()) return {{{sample.context, false}}, 0, 1};
  const std::vector<std::string> frames = frames_of(model, {{"user", ""}});
  return {
      {{frames[0], true}, {sample.context, false}, {std::string(kBetween) + sample.question, false}, {frames[1], true}},
      1,
      2,
      2};
}

// Tokenises part after part. A begin token belongs to none of them.
class PromptBuilder {
 public:
  explicit PromptBuilder(const Model& model) : model_(model) {
    prompt_.tokens = model.tokenize("", true, false);
    prompt_.text_offsets.assign(prompt_.tokens.size(), 0);
  }

  void add(const Part& part) {
    if (part.text.empty()) return;
    if (prompt_.text.size() + part.text.size() > std::numeric_limits<std::int32_t>::max())
      throw InputError("a prompt of more than 2 GiB of text is not possible; shorten it");
    const std::string_view text = part.text;
    const std::vector<Token> tokens = model_.tokenize(text, false, part.is_frame);
    std::size_t offset = 0;
    for (const std::string& piece : pieces_of(text, tokens)) {
      prompt_.text_offsets.push_back(static_cast<std::int32_t>(prompt_.text.size() + offset));
      if (text.substr(offset).starts_with(piece)) offset += piece.size();
    }
    is_exact_ = is_exact_ && offset == text.size();
    prompt_.tokens.insert(prompt_.tokens.end(), tokens.begin(), tokens.end());
    prompt_.text += part.text;
  }

  // The last of what was added.
  std::vector<Token> tokens_from(std::int64_t first) const {
    return {prompt_.tokens.begin() + first, prompt_.tokens.end()};
  }

  std::int64_t size() const { return static_cast<std::int64_t>(prompt_.tokens.size()); }
  bool is_exact() const { return is_exact_; }  // whether the pieces of the tokens add up to the text
  Prompt& prompt() { return prompt_; }

 private:
  // The text of each token, without the space that some tokenizers put before a text.
  std::vector<std::string> pieces_of(std::string_view text, const std::vector<Token>& tokens) const {
    std::vector<std::string> pieces;
    std::size_t size = 0;
    for (const Token& token : tokens) {
      pieces.push_back(model_.detokenize({&token, 1}));
      size += pieces.back().size();
    }
    if (size == text.size() + 1 && pieces[0].starts_with(' ')) pieces[0].erase(0, 1);
    return pieces;
  }

  const Model& model_;
  Prompt prompt_;
  bool is_exact_ = true;
};

// Tokens of the context whose bytes overlap a span.
std::vector<Span> evidence_tokens(const Prompt& prompt, std::string_view context, const std::vector<Span>& spans) {
  if (spans.empty()) return {};
  const std::vector<std::int64_t> bytes = code_point_offsets(context);
  const Span inside = prompt.segments.context;
  const auto first = prompt.text_offsets.begin() + inside.begin;
  const auto last = prompt.text_offsets.begin() + inside.end;
  std::vector<Span> found;
  for (const Span& span : spans) {
    const std::int64_t from = *first + bytes[static_cast<std::size_t>(span.begin)];
    const std::int64_t to = *first + bytes[static_cast<std::size_t>(span.end)];
    // The last token that begins at or before the span, to the last that begins inside of it.
    const Span tokens{std::upper_bound(first, last, from) - first - 1, std::lower_bound(first, last, to) - first};
    found.push_back({inside.begin + tokens.begin, inside.begin + tokens.end});
  }
  return found;
}

}  // namespace

Prompt make_prompt(const Model& model, const TaskSample& sample, const Truncation& truncation) {
  const Layout layout = layout_of(model, sample);
  PromptBuilder builder(model);
  Segments segments;
  std::vector<Token> turn_begin, turn_end;
  for (std::size_t i = 0; i < layout.parts.size(); ++i) {
    const std::int64_t first = builder.size();
    if (i == layout.context_begin) segments.context.begin = first;
    builder.add(layout.parts[i]);
    if (i + 1 == layout.context_end) segments.context.end = builder.size();
    if (i >= layout.context_end && i < layout.question) turn_begin = builder.tokens_from(first);
    if (i > layout.question) turn_end = builder.tokens_from(first);
  }
  segments.prompt_end = builder.size();
  const bool is_cut = truncation.policy != Truncate::error && segments.prompt_end > truncation.limit;
  if (!builder.is_exact() && (is_cut || !sample.evidence.empty())) {
    throw Error(
        fmt::format("{}: the tokenizer of {} changes the text of sample {}, so that evidence and cuts have no "
                    "exact place in it; leave evidence and truncate out",
                    sample.where, model.card().name, sample.id));
  }
  Prompt prompt = std::move(builder.prompt());
  prompt.segments = segments;
  prompt.turn_begin = std::move(turn_begin);
  prompt.turn_end = std::move(turn_end);
  prompt.evidence = evidence_tokens(prompt, sample.context, sample.evidence);
  truncate_context(prompt, truncation, fmt::format("{}: sample {}", sample.where, sample.id));
  return prompt;
}

}  // namespace depthkv
