// SPDX-License-Identifier: Apache-2.0
#include "replay/answers.h"

#include <algorithm>

#include "depthkv/tasks.h"

namespace depthkv {

std::int64_t room_behind(const ModelCard& model, const Segments& segments) {
  return std::max<std::int64_t>(0, model.context_length - segments.prompt_end);
}

std::vector<Answer> answer(const Model& model, Branches& branches, const Sample& sample, std::int64_t cut,
                           std::int64_t max_new, std::size_t count) {
  max_new = std::min(max_new, room_behind(model.card(), sample.segments));
  if (max_new == 0 || !is_text_metric(sample.metric)) return {};
  const auto lead =
      std::span(sample.tokens)
          .subspan(static_cast<std::size_t>(cut), static_cast<std::size_t>(sample.segments.prompt_end - cut));
  std::vector<Answer> answers;
  for (const std::vector<Token>& tokens : branches.generate(lead, max_new, count)) {
    const std::string text = model.detokenize(tokens);
    const std::string first = answers.empty() ? text : answers[0].text;
    answers.push_back(
        {text, score_answer(sample.metric, text, sample.answers), score_answer("length_ratio", text, {&first, 1})});
  }
  return answers;
}

}  // namespace depthkv
