// SPDX-License-Identifier: Apache-2.0
// Task samples, the files they come from, prompts made of them, and scores of what a model answered.
#pragma once
#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "depthkv/model.h"
#include "depthkv/trace.h"

namespace depthkv {

// What a model is asked: one line of a task file, or a text.
struct TaskSample {
  static constexpr std::int64_t kAnyLength = 1'000'000;  // more than is ever recorded: the plan's bound alone counts

  std::string id;
  std::string task;
  std::string context;
  std::string question;           // empty: the text is continued, without a chat template
  std::vector<Message> messages;  // of a chat, in place of context and question; the last is the user's
  std::vector<std::string> answers;
  std::int64_t max_new_tokens = kAnyLength;  // 0: nothing is generated, the reference is the answer
  std::string metric = "none";               // one of metric_names()
  std::string source;
  std::string license;
  std::vector<Span> evidence;  // code points of context
  std::string where;           // "file:line", for messages
};

// Stands in reports for all tasks together; no task may be called so.
inline constexpr const char* kAllTasks = "all";

enum class TaskFormat {
  tasks,  // JSON lines with a context, a question and answers
  text,   // one sample: the file is the context
  chat,   // JSON lines with messages
};
std::string_view to_string(TaskFormat format);
std::optional<TaskFormat> format_by_extension(const std::filesystem::path& file);  // .jsonl: tasks, .txt: text

// A file of samples and how to read it.
struct TaskSource {
  std::filesystem::path file;
  TaskFormat format = TaskFormat::tasks;
  std::map<std::string, std::string> fields =
      {};                    // one of task_fields(format) to its name in the file, "a.b" for nested
  TaskSample defaults = {};  // what holds where the file says nothing: task, question, max_new_tokens, metric, ...
};
const std::vector<std::string>& task_fields(TaskFormat format);

// Throws InputError with file and line: a file that can't be read, holds no sample or isn't UTF-8; invalid JSON; a key
// that is missing, mistyped or probably misspelt; an empty context, an unknown metric, a span outside the context, an
// id that was there before.
std::vector<TaskSample> read_tasks(const TaskSource& source);

// What to do with a prompt of more than `limit` tokens. Only the context is ever cut: around its middle, keeping as
// much of both ends, or at its end.
enum class Truncate { error, middle, end };
std::string_view to_string(Truncate truncate);
struct Truncation {
  Truncate policy = Truncate::error;
  std::int64_t limit = std::numeric_limits<std::int64_t>::max();
};

// A sample as the model sees it: chat frame, context, question, chat frame; each part tokenised on its own, so that
// segment bounds are exact. The context cut comes right after the context's last token. In a chat, the context is what
// comes before the last message, chat frames between messages included; a message alone is the context.
struct Prompt {
  std::string text;  // what the tokens stand for
  std::vector<Token> tokens;
  std::vector<std::int32_t> text_offsets;  // byte offset of each token in text
  Segments segments;
  std::vector<Span> evidence;  // tokens that overlap an evidence span
  std::int64_t truncated = 0;  // tokens of the context that were removed
  // Frames of the user's turn that a context leads to: from its end to what the user says, nothing where the context is
  // of that turn, and from there to the answer. Nothing where there is no chat template.
  std::vector<Token> turn_begin, turn_end;
};
// Throws InputError if the sample is too long and may not be cut, or is too long without its context.
Prompt make_prompt(const Model& model, const TaskSample& sample, const Truncation& truncation = {});

// Scores of a text; all but length_ratio lie in [0, 1]. Definitions: docs/metrics.md.
// Throws Error on another metric ("nll" and "none" have no score of a text).
double score_answer(std::string_view metric, std::string_view output, std::span<const std::string> references);
bool is_text_metric(std::string_view metric);
const std::vector<std::string>& metric_names();

}  // namespace depthkv
