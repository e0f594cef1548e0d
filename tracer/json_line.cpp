// SPDX-License-Identifier: Apache-2.0
#include "tracer/json_line.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "depthkv/error.h"
#include "tracer/utf8.h"

namespace depthkv {
namespace {

using Json = nlohmann::json;

constexpr int kMostDepth = 64;  // of nested values: the library that parses them copies and prints recursively

// Fields that change what is measured when they are absent, so that a misspelt name mustn't pass for an absent one.
const std::vector<std::string> kDecisive{"question", "answers", "max_new_tokens", "metric", "evidence"};

const std::vector<std::string> kRoles{"system", "user", "assistant"};

Json parse(const std::string& text, const std::string& where) {
  std::set<std::string> keys;
  const auto look = [&](int depth, Json::parse_event_t event, const Json& value) {
    if (depth > kMostDepth)
      throw InputError(
          fmt::format("{}: values are nested more than {} deep; every line has to be one JSON object of "
                      "strings, numbers and lists",
                      where, kMostDepth));
    if (depth == 1 && event == Json::parse_event_t::key && !keys.insert(value.get<std::string>()).second)
      throw InputError(fmt::format("{}: the key \"{}\" is given twice; remove one", where, value.get<std::string>()));
    return true;
  };
  try {
    return Json::parse(text, look);
  } catch (const Json::parse_error& error) {
    throw InputError(
        fmt::format("{}: not valid JSON at byte {}; every line has to be one JSON object", where, error.byte));
  } catch (const Json::out_of_range&) {
    throw InputError(fmt::format("{}: holds a number that is out of range", where));
  }
}

// A value as messages show it.
std::string shown(const Json& value) {
  constexpr std::size_t kMost = 60;
  if (value.is_string()) return value.get_ref<const std::string&>().size() > kMost ? "a long text" : value.dump();
  return value.is_structured() ? (value.is_array() ? "a list" : "an object") : value.dump();
}

}  // namespace

void check_text(std::string_view text, const std::string& what) {
  const std::size_t valid = valid_utf8(text);
  if (valid < text.size()) {
    throw InputError(fmt::format("{}: byte {} is 0x{:02x}, which isn't UTF-8 there; convert the file to UTF-8", what,
                                 valid + 1, static_cast<unsigned char>(text[valid])));
  }
  if (text.find('\0') != std::string_view::npos)
    throw InputError(fmt::format("{}: holds a zero character, which traces can't store; remove it", what));
}

JsonLine::JsonLine(const std::string& text, std::string where, const std::map<std::string, std::string>& names)
    : where_(std::move(where)), names_(names) {
  check_text(text, where_);
  object_ = parse(text, where_);
  if (!object_.is_object())
    throw InputError(fmt::format("{}: found {}, expected a JSON object", where_, shown(object_)));
}

std::string JsonLine::name_of(const char* field) const {
  const auto found = names_.find(field);
  return found == names_.end() ? field : found->second;
}

// A key that holds dots itself comes before the path that it could mean.
const Json* JsonLine::find(const std::string& name) const {
  if (const auto found = object_.find(name); found != object_.end()) return &*found;
  const Json* at = &object_;
  std::size_t begin = 0;
  while (begin <= name.size()) {
    const std::size_t dot = std::min(name.find('.', begin), name.size());
    if (!at->is_object()) return nullptr;
    const auto found = at->find(name.substr(begin, dot - begin));
    if (found == at->end()) return nullptr;
    at = &*found;
    begin = dot + 1;
  }
  return at;
}

std::string JsonLine::nearest(const std::string& name) const {
  const auto is_taken = [&](const std::string& key) {
    const auto is_key = [&](const auto& entry) { return entry.second == key; };
    return std::any_of(names_.begin(), names_.end(), is_key);
  };
  std::vector<std::string> keys;
  for (const auto& item : object_.items()) {
    if (!is_taken(item.key())) keys.push_back(item.key());
  }
  return suggestion(name, keys);
}

const Json& JsonLine::required(const char* field) const {
  const std::string name = name_of(field);
  if (const Json* found = find(name); found != nullptr) return *found;
  const bool is_chat = std::string_view(field) == "context" && object_.contains("messages");
  throw InputError(fmt::format("{}: no key \"{}\"{}{}", where_, name, nearest(name),
                               is_chat ? "; it has messages, which format: chat reads" : ""));
}

const Json* JsonLine::optional(const char* field, bool has_default) const {
  const std::string name = name_of(field);
  const Json* found = find(name);
  if (found != nullptr) return found->is_null() ? nullptr : found;
  if (has_default) return nullptr;
  const std::string near = nearest(name);
  if (names_.contains(field)) {
    throw InputError(
        fmt::format("{}: no key \"{}\", which {} is read from{}; write null where there is none, or give a "
                    "default",
                    where_, name, field, near));
  }
  if (!near.empty() && std::find(kDecisive.begin(), kDecisive.end(), field) != kDecisive.end())
    throw InputError(
        fmt::format("{}: no key \"{}\"{}; rename it, map the field, or give a default", where_, name, near));
  return nullptr;
}

std::string JsonLine::text(const Json& value, const std::string& name) const {
  if (value.is_number_integer()) return value.dump();
  if (!value.is_string()) throw InputError(fmt::format("{}: {} is {}, expected a string", where_, name, shown(value)));
  auto text = value.get<std::string>();
  check_text(text, fmt::format("{}: {}", where_, name));
  return text;
}

std::vector<std::string> JsonLine::texts(const Json& value, const std::string& name) const {
  if (!value.is_array()) return {text(value, name)};
  std::vector<std::string> all;
  for (const Json& item : value) all.push_back(text(item, name));
  return all;
}

std::int64_t JsonLine::count(const Json& value, const std::string& name) const {
  if (!value.is_number_integer() || value < 0 || value > TaskSample::kAnyLength) {
    throw InputError(fmt::format("{}: {} is {}, expected a whole number, 0 to {}", where_, name, shown(value),
                                 TaskSample::kAnyLength));
  }
  return value.get<std::int64_t>();
}

std::vector<Span> JsonLine::spans(const Json& value, const std::string& name, std::int64_t length) const {
  const auto is_pair = [](const Json& item) {
    return item.is_array() && item.size() == 2 && item[0].is_number_integer() && item[1].is_number_integer();
  };
  if (!value.is_array() || !std::all_of(value.begin(), value.end(), is_pair)) {
    throw InputError(fmt::format("{}: {} is {}, expected a list of [start, end] pairs", where_, name, shown(value)));
  }
  std::vector<Span> all;
  for (const Json& item : value) {
    const Span span{item[0].get<std::int64_t>(), item[1].get<std::int64_t>()};
    if (span.begin < 0 || span.begin >= span.end || span.end > length) {
      throw InputError(fmt::format("{}: {} has [{}, {}), the context has {} code points", where_, name, span.begin,
                                   span.end, length));
    }
    all.push_back(span);
  }
  return all;
}

std::vector<Message> JsonLine::messages(const Json& value, const std::string& name) const {
  if (!value.is_array() || value.empty())
    throw InputError(fmt::format("{}: {} is {}, expected a list of {{role, content}} objects", where_, name,
                                 value.is_array() ? "empty" : shown(value)));
  std::vector<Message> all;
  for (const Json& item : value) {
    const std::string which = fmt::format("{}[{}]", name, all.size());
    const auto part = [&](const char* key) {
      if (!item.is_object() || !item.contains(key))
        throw InputError(fmt::format("{}: {} has no {}, expected {{role, content}}", where_, which, key));
      return text(item.at(key), fmt::format("{}.{}", which, key));
    };
    Message message{part("role"), part("content")};
    if (std::find(kRoles.begin(), kRoles.end(), message.role) == kRoles.end()) {
      throw InputError(fmt::format("{}: {}.role is \"{}\", expected one of {}{}", where_, which, message.role,
                                   fmt::join(kRoles, ", "), suggestion(message.role, kRoles)));
    }
    if (message.role == "system" && !all.empty())
      throw InputError(fmt::format("{}: {}.role is system, which only the first message may be", where_, which));
    all.push_back(std::move(message));
  }
  return all;
}

}  // namespace depthkv
