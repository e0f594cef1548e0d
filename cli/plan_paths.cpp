// SPDX-License-Identifier: Apache-2.0
#include "cli/plan_paths.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "depthkv/error.h"

namespace depthkv {
namespace {

constexpr std::string_view kOpening = "${";
constexpr std::string_view kElse = ":-";

bool is_name(std::string_view text) {
  constexpr std::string_view kDigits = "0123456789";
  constexpr std::string_view kCharacters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789";
  return !text.empty() && kDigits.find(text.front()) == kDigits.npos &&
         text.find_first_not_of(kCharacters) == text.npos;
}

// What stands between the braces.
std::string value_of(std::string_view inside, const Variables& variables, const std::string& what) {
  const auto divider = std::min(inside.find(kElse), inside.size());
  const std::string name(inside.substr(0, divider));
  if (!is_name(name))
    throw InputError(fmt::format(
        "{}: \"${{{}}}\" is not ${{NAME}} or ${{NAME:-default}}; write $${{ for the characters", what, inside));
  std::string value;
  if (const auto given = variables.find(name); given != variables.end()) {
    value = given->second;
  } else if (const char* set = std::getenv(name.c_str())) {
    value = set;
  }
  if (!value.empty()) return value;
  if (divider < inside.size()) return std::string(inside.substr(divider + kElse.size()));
  throw InputError(fmt::format("{}: the variable {} is not set; set it in the environment, or write ${{{}:-default}}",
                               what, name, name));
}

}  // namespace

std::string with_variables(const std::string& text, const Variables& variables, const std::string& what) {
  std::string out;
  std::string_view rest = text;
  for (auto at = rest.find(kOpening); at != rest.npos; at = rest.find(kOpening)) {
    const std::string_view before = rest.substr(0, at);
    out += before;
    rest.remove_prefix(at + kOpening.size());
    if (before.ends_with('$')) {  // $${
      out += '{';
      continue;
    }
    const auto end = rest.find('}');
    if (end == rest.npos) throw InputError(fmt::format("{}: \"{}\" has a ${{ without its }}", what, text));
    out += value_of(rest.substr(0, end), variables, what);
    rest.remove_prefix(end + 1);
  }
  return out += rest;
}

std::string without_variables(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '{' && out.ends_with('$')) out += "$";
    out += c;
  }
  return out;
}

bool is_path_parameter(std::string_view name) { return name == "file" || name == "calibration"; }

void expect_there(const std::vector<PlanPath>& paths) {
  std::string missing;
  for (const PlanPath& named : paths) {
    std::error_code unknown;
    if (std::filesystem::exists(named.path, unknown)) continue;
    missing += fmt::format("\n  {}: {}: {}", named.where, named.key,
                           named.path.empty() ? "none is given" : named.path.string());
  }
  if (!missing.empty())
    throw InputError("the plan needs files that aren't there; name others, or put them there:" + missing);
}

}  // namespace depthkv
