// SPDX-License-Identifier: Apache-2.0
// Task samples as JSON lines, prompts made of them, and scores of what a model answered.
#pragma once
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "depthkv/model.h"
#include "depthkv/trace.h"

namespace depthkv {

// One line of a task file. Field names as in configs/tasks/README.md.
struct TaskSample {
  std::string id;
  std::string task;
  std::string context;
  std::string question;  // empty: the text is continued, without a chat template
  std::vector<std::string> answers;
  std::int64_t max_new_tokens = 0;  // 0: nothing is generated, the reference is the answer
  std::string metric;
  std::string source;
  std::string license;
  std::vector<Span> evidence;  // code points of context
};

// Throws InputError with file and line: unreadable file, no sample in it, invalid JSON, missing or mistyped key, empty
// context, unknown metric, span outside the context, an id that was there before.
std::vector<TaskSample> read_tasks(const std::filesystem::path& file);

// A sample as the model sees it: chat frame, context, question, chat frame; each part tokenised on its own, so that
// segment bounds are exact. The context cut comes right after the context's last token.
struct Prompt {
  std::string text;
  std::vector<Token> tokens;
  std::vector<std::int32_t> text_offsets;  // byte offset of each token in text
  Segments segments;
  std::vector<Span> evidence;  // tokens that overlap an evidence span
};
Prompt make_prompt(const Model& model, const TaskSample& sample);

// Task scores in [0, 1]: f1, rouge1, choice, exact_number, string_match_all. Definitions: docs/metrics.md.
// Throws Error on another metric ("nll" has no score of a text).
double score_answer(std::string_view metric, std::string_view output, std::span<const std::string> references);
bool is_text_metric(std::string_view metric);

}  // namespace depthkv
