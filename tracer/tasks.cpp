// SPDX-License-Identifier: Apache-2.0
#include "depthkv/tasks.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "depthkv/error.h"

namespace depthkv {
namespace {

using Json = nlohmann::json;

const std::vector<std::string> kMetricNames{"rouge1", "f1", "choice", "exact_number", "string_match_all", "nll"};

std::int64_t code_points(const std::string& text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xc0U) != 0x80U; });
}

// Reads one line's fields; every complaint starts with "file:line".
class Line {
 public:
  Line(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) throw InputError(fmt::format("{}: expected a JSON object", where_));
  }

  const Json& required(const char* key) const {
    const auto found = object_.find(key);
    if (found != object_.end()) return *found;
    std::vector<std::string> keys;
    for (const auto& item : object_.items()) keys.push_back(item.key());
    throw InputError(fmt::format("{}: no key \"{}\"{}", where_, key, suggestion(key, keys)));
  }

  std::string text(const char* key) const { return as_text(required(key), key); }
  std::string text_or(const char* key, const char* fallback) const {
    return object_.contains(key) ? text(key) : fallback;
  }

  std::int64_t count(const char* key) const {
    const Json& value = required(key);
    if (!value.is_number_integer() || value < 0 || value > 1'000'000)
      throw InputError(fmt::format("{}: {} is {}, expected a whole number, 0 or more", where_, key, value.dump()));
    return value.get<std::int64_t>();
  }

  std::vector<std::string> texts(const char* key) const {
    const Json& value = required(key);
    if (!value.is_array()) throw InputError(fmt::format("{}: {} isn't a list of strings", where_, key));
    std::vector<std::string> all;
    for (const Json& item : value) all.push_back(as_text(item, key));
    return all;
  }

  // [start, end) pairs in code points of a text of `length` of them.
  std::vector<Span> spans(const char* key, std::int64_t length) const {
    std::vector<Span> all;
    if (!object_.contains(key)) return all;
    const Json& value = object_.at(key);
    const auto is_pair = [](const Json& item) {
      return item.is_array() && item.size() == 2 && item[0].is_number_integer() && item[1].is_number_integer();
    };
    if (!value.is_array() || !std::all_of(value.begin(), value.end(), is_pair))
      throw InputError(fmt::format("{}: {} isn't a list of [start, end] pairs", where_, key));
    for (const Json& item : value) {
      const Span span{item[0].get<std::int64_t>(), item[1].get<std::int64_t>()};
      if (span.begin < 0 || span.begin >= span.end || span.end > length) {
        throw InputError(fmt::format("{}: {} has [{}, {}), the context has {} code points", where_, key, span.begin,
                                     span.end, length));
      }
      all.push_back(span);
    }
    return all;
  }

  const std::string& where() const { return where_; }

 private:
  std::string as_text(const Json& value, const char* key) const {
    if (!value.is_string()) throw InputError(fmt::format("{}: {} isn't a string", where_, key));
    auto text = value.get<std::string>();
    if (text.find('\0') != std::string::npos)
      throw InputError(fmt::format("{}: {} holds a zero character, which traces can't store; remove it", where_, key));
    return text;
  }

  const Json& object_;
  std::string where_;
};

TaskSample read_sample(const Line& line) {
  TaskSample sample;
  sample.id = line.text("id");
  sample.task = line.text_or("task", "");
  sample.context = line.text("context");
  sample.question = line.text_or("question", "");
  sample.answers = line.texts("answers");
  sample.max_new_tokens = line.count("max_new_tokens");
  sample.metric = line.text("metric");
  sample.source = line.text_or("source", "");
  sample.license = line.text_or("license", "");
  sample.evidence = line.spans("evidence", code_points(sample.context));
  if (sample.id.empty()) throw InputError(fmt::format("{}: id is empty", line.where()));
  if (sample.context.empty()) throw InputError(fmt::format("{}: context is empty", line.where()));
  if (std::find(kMetricNames.begin(), kMetricNames.end(), sample.metric) == kMetricNames.end()) {
    throw InputError(fmt::format("{}: metric is \"{}\", expected one of {}{}", line.where(), sample.metric,
                                 fmt::join(kMetricNames, ", "), suggestion(sample.metric, kMetricNames)));
  }
  if (sample.max_new_tokens == 0 && (sample.answers.empty() || sample.answers[0].empty())) {
    throw InputError(fmt::format(
        "{}: max_new_tokens is 0, so the first of answers is the continuation, and there is none", line.where()));
  }
  return sample;
}

Json parse(const std::string& text, const std::string& where) {
  try {
    return Json::parse(text);
  } catch (const Json::parse_error& error) {
    throw InputError(
        fmt::format("{}: not valid JSON at byte {}; every line has to be one JSON object", where, error.byte));
  } catch (const Json::out_of_range&) {
    throw InputError(fmt::format("{}: holds a number that is too large for any computer", where));
  }
}

}  // namespace

std::vector<TaskSample> read_tasks(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream || !std::filesystem::is_regular_file(file))
    throw InputError(fmt::format("{}: no such task file", file.string()));
  std::vector<TaskSample> samples;
  std::set<std::string> ids;
  std::string text;
  for (int number = 1; std::getline(stream, text); ++number) {
    if (number == 1 && text.starts_with("\xef\xbb\xbf")) text.erase(0, 3);  // byte order mark
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = fmt::format("{}:{}", file.string(), number);
    const Json object = parse(text, where);
    samples.push_back(read_sample(Line(object, where)));
    if (!ids.insert(samples.back().id).second)
      throw InputError(
          fmt::format("{}: the id \"{}\" was there before; ids name the files of traces", where, samples.back().id));
  }
  if (samples.empty())
    throw InputError(fmt::format("{}: holds no sample; expected one JSON object per line", file.string()));
  return samples;
}

}  // namespace depthkv
