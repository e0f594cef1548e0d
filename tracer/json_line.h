// SPDX-License-Identifier: Apache-2.0
// One line of a JSON-lines file, read field by field; every complaint is an InputError that begins with "file:line".
#pragma once
#include <nlohmann/json.hpp>

#include "depthkv/tasks.h"

namespace depthkv {

class JsonLine {
 public:
  using Json = nlohmann::json;

  // `names`: as TaskSource::fields. Throws on what isn't a JSON object in UTF-8.
  JsonLine(const std::string& text, std::string where, const std::map<std::string, std::string>& names);

  const std::string& where() const { return where_; }

  // A field under its name in the file. What may be absent is absent too where it is null.
  const Json& required(const char* field) const;
  // nullptr: absent. Unless there is a default to speak for it, a name that was mapped must be there, and for fields
  // that change what is measured, a key that is nearly the name counts as misspelt.
  const Json* optional(const char* field, bool has_default = false) const;

  std::string text(const Json& value, const std::string& name) const;                // a string, or a whole number
  std::vector<std::string> texts(const Json& value, const std::string& name) const;  // a list of them, or one
  std::int64_t count(const Json& value, const std::string& name) const;
  std::vector<Span> spans(const Json& value, const std::string& name, std::int64_t length) const;  // inside [0, length)
  std::vector<Message> messages(const Json& value, const std::string& name) const;

  std::string name_of(const char* field) const;  // in the file

 private:
  const Json* find(const std::string& name) const;
  std::string nearest(const std::string& name) const;

  Json object_;
  std::string where_;
  const std::map<std::string, std::string>& names_;
};

// Throws InputError, which begins with `what`, unless the text is UTF-8 without NUL, which traces can't store.
void check_text(std::string_view text, const std::string& what);

}  // namespace depthkv
