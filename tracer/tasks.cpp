// SPDX-License-Identifier: Apache-2.0
#include "depthkv/tasks.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <set>

#include "depthkv/error.h"
#include "tracer/json_line.h"
#include "tracer/utf8.h"

namespace depthkv {
namespace {

constexpr std::uintmax_t kMostBytes = std::uintmax_t{512}
                                      << 20;  // the most that tokenizers take, and all is held at once
constexpr std::size_t kLongestId = 200;       // file systems take names of 255 bytes
constexpr const char* kByteOrderMark = "\xef\xbb\xbf";

std::ifstream open_file(const std::filesystem::path& file) {
  std::error_code error;
  std::ifstream stream(file, std::ios::binary);
  if (!stream || !std::filesystem::is_regular_file(file, error))
    throw InputError(fmt::format("{}: no such task file", file.string()));
  if (const auto size = std::filesystem::file_size(file, error); error || size > kMostBytes)
    throw InputError(fmt::format("{}: {} bytes, at most {} are read; split it", file.string(), size, kMostBytes));
  return stream;
}

std::string line_of(const std::filesystem::path& file, std::int64_t number) {
  return fmt::format("{}:{}", file.string(), number);
}

// A field that may be absent. `sample` holds the file's default, which is one if it isn't what every sample begins
// with.
template <class T>
const nlohmann::json* find(const JsonLine& line, const char* field, const TaskSample& sample, T TaskSample::*member) {
  static const TaskSample kPlain;
  return line.optional(field, sample.*member != kPlain.*member);
}

void take(const JsonLine& line, const char* field, TaskSample& sample, std::string TaskSample::*member) {
  if (const auto* value = find(line, field, sample, member)) sample.*member = line.text(*value, line.name_of(field));
}

void read_context(const JsonLine& line, TaskSample& sample) {
  sample.context = line.text(line.required("context"), line.name_of("context"));
  take(line, "question", sample, &TaskSample::question);
  if (const auto* value = line.optional("evidence")) {
    const auto length = static_cast<std::int64_t>(code_point_offsets(sample.context).size()) - 1;
    sample.evidence = line.spans(*value, line.name_of("evidence"), length);
  }
}

// An assistant's message after the user's last is the reference, unless the line has answers.
void read_messages(const JsonLine& line, TaskSample& sample) {
  const std::string name = line.name_of("messages");
  sample.messages = line.messages(line.required("messages"), name);
  if (line.optional("evidence", true) != nullptr)
    throw InputError(
        fmt::format("{}: evidence has no meaning in a chat; remove it, or use format: tasks", line.where()));
  if (sample.messages.back().role == "assistant") {
    if (sample.answers.empty()) sample.answers = {sample.messages.back().content};
    sample.messages.pop_back();
  }
  if (sample.messages.empty() || sample.messages.back().role != "user") {
    throw InputError(
        fmt::format("{}: {} has to end with the user's question, with at most one answer of the assistant "
                    "after it",
                    line.where(), name));
  }
  const auto is_empty = [](const Message& message) { return message.content.empty(); };
  const auto context_end = sample.messages.size() > 1 ? sample.messages.end() - 1 : sample.messages.end();
  if (is_empty(sample.messages.back()) || std::all_of(sample.messages.begin(), context_end, is_empty))
    throw InputError(fmt::format("{}: {} has an empty question, or nothing before it", line.where(), name));
}

// What doesn't depend on where the sample came from.
void check(const TaskSample& sample) {
  const auto bad = [&](const std::string& what) { return InputError(fmt::format("{}: {}", sample.where, what)); };
  if (sample.id.empty()) throw bad("id is empty");
  if (sample.id.size() > kLongestId)
    throw bad(fmt::format("id has {} bytes, at most {} are possible: it names the sample's file", sample.id.size(),
                          kLongestId));
  if (sample.task == kAllTasks)
    throw bad(fmt::format("task is \"{}\", which stands for all tasks together; give it another name", kAllTasks));
  if (sample.messages.empty() && sample.context.empty()) throw bad("context is empty");
  const std::vector<std::string>& metrics = metric_names();
  if (std::find(metrics.begin(), metrics.end(), sample.metric) == metrics.end()) {
    throw bad(fmt::format("metric is \"{}\", expected one of {}{}", sample.metric, fmt::join(metrics, ", "),
                          suggestion(sample.metric, metrics)));
  }
  if (sample.max_new_tokens == 0 && (sample.answers.empty() || sample.answers[0].empty()))
    throw bad("max_new_tokens is 0, so the first of answers is the continuation, and there is none");
  if (sample.metric != "none" && sample.answers.empty())
    throw bad(fmt::format("metric is {}, but there are no answers to compare with; add some, or set metric to none",
                          sample.metric));
}

TaskSample read_line(const TaskSource& source, const std::string& text, std::int64_t number) {
  const JsonLine line(text, line_of(source.file, number), source.fields);
  TaskSample sample = source.defaults;
  sample.where = line.where();
  sample.id = fmt::format("{}.{}", source.file.stem().string(), number);
  if (const auto* id = line.optional("id")) sample.id = line.text(*id, line.name_of("id"));
  if (const auto* answers = line.optional("answers")) sample.answers = line.texts(*answers, line.name_of("answers"));
  if (const auto* count = find(line, "max_new_tokens", sample, &TaskSample::max_new_tokens))
    sample.max_new_tokens = line.count(*count, line.name_of("max_new_tokens"));
  take(line, "task", sample, &TaskSample::task);
  take(line, "metric", sample, &TaskSample::metric);
  take(line, "source", sample, &TaskSample::source);
  take(line, "license", sample, &TaskSample::license);
  if (source.format == TaskFormat::chat) {
    read_messages(line, sample);
  } else {
    read_context(line, sample);
  }
  check(sample);
  return sample;
}

std::vector<TaskSample> read_lines(const TaskSource& source) {
  std::vector<TaskSample> samples;
  std::ifstream stream = open_file(source.file);
  std::string text;
  for (std::int64_t number = 1; std::getline(stream, text); ++number) {
    if (number == 1 && text.starts_with(kByteOrderMark)) text.erase(0, 3);
    if (text.find_first_not_of(" \t\r") != std::string::npos) samples.push_back(read_line(source, text, number));
  }
  if (samples.empty())
    throw InputError(fmt::format("{}: holds no sample; expected one JSON object per line", source.file.string()));
  return samples;
}

TaskSample read_text(const TaskSource& source) {
  TaskSample sample = source.defaults;
  sample.where = source.file.string();
  sample.id = source.file.stem().string();
  std::ifstream stream = open_file(source.file);
  sample.context.assign(std::istreambuf_iterator<char>(stream), {});
  if (sample.context.starts_with(kByteOrderMark)) sample.context.erase(0, 3);
  const std::string_view text = sample.context;
  std::int64_t number = 1;
  for (std::size_t begin = 0; begin < text.size(); ++number) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    check_text(text.substr(begin, end - begin), line_of(source.file, number));
    begin = end + 1;
  }
  check(sample);
  return sample;
}

}  // namespace

std::string_view to_string(TaskFormat format) {
  constexpr std::string_view kNames[] = {"tasks", "text", "chat"};
  return kNames[static_cast<std::size_t>(format)];
}

std::string_view to_string(Truncate truncate) {
  constexpr std::string_view kNames[] = {"error", "middle", "end"};
  return kNames[static_cast<std::size_t>(truncate)];
}

std::optional<TaskFormat> format_by_extension(const std::filesystem::path& file) {
  if (file.extension() == ".jsonl") return TaskFormat::tasks;
  if (file.extension() == ".txt") return TaskFormat::text;
  return std::nullopt;
}

const std::vector<std::string>& task_fields(TaskFormat format) {
  static const std::vector<std::string> kTasks{"id",     "task",     "context", "question", "answers", "max_new_tokens",
                                               "metric", "evidence", "source",  "license"};
  static const std::vector<std::string> kChat{"id",     "task",   "messages", "answers", "max_new_tokens",
                                              "metric", "source", "license"};
  static const std::vector<std::string> kText;
  return format == TaskFormat::tasks ? kTasks : format == TaskFormat::chat ? kChat : kText;
}

std::vector<TaskSample> read_tasks(const TaskSource& source) {
  const TaskSample& defaults = source.defaults;
  for (const std::string& text : {defaults.task, defaults.question, defaults.source, defaults.license})
    check_text(text, fmt::format("{}: a default", source.file.string()));
  std::vector<TaskSample> samples;
  if (source.format == TaskFormat::text) {
    samples.push_back(read_text(source));
  } else {
    samples = read_lines(source);
  }
  std::set<std::string> ids;
  for (const TaskSample& sample : samples) {
    if (!ids.insert(sample.id).second) {
      throw InputError(
          fmt::format("{}: the id \"{}\" was there before; ids name the files of traces", sample.where, sample.id));
    }
  }
  return samples;
}

}  // namespace depthkv
