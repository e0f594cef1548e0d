// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "depthkv/error.h"
#include "depthkv/policy.h"

namespace depthkv {
namespace {

template <class T>
constexpr const char* kTypeName = "text";
template <>
constexpr const char* kTypeName<bool> = "true or false";
template <>
constexpr const char* kTypeName<std::int64_t> = "a whole number";
template <>
constexpr const char* kTypeName<double> = "a number";
template <>
constexpr const char* kTypeName<std::vector<double>> = "a list of numbers";

std::string prefix(const PolicySpec& spec, const std::string& kind) {
  return fmt::format("{}{}{} {}", spec.where, spec.where.empty() ? "" : ": ", kind, spec.name);
}

// What the user wrote as a T, if it can be one.
template <class T>
std::optional<T> converted(const Value& value) {
  if (const T* same = std::get_if<T>(&value)) return *same;
  if constexpr (std::is_same_v<T, double>) {
    if (const auto* whole = std::get_if<std::int64_t>(&value)) return static_cast<double>(*whole);
  }
  if constexpr (std::is_same_v<T, std::vector<double>>) {
    if (const auto* whole = std::get_if<std::int64_t>(&value)) return T{static_cast<double>(*whole)};
    if (const auto* real = std::get_if<double>(&value)) return T{*real};
  }
  return std::nullopt;
}

// As it is where it can't be mistaken for more than one value, else in quotes.
std::string unambiguous(const std::string& text) {
  if (text.find_first_of(" \t\n\"=") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' || c == '\\' ? std::string{'\\', c} : std::string(1, c);
  return quoted + "\"";
}

// Levenshtein's distance, one row at a time.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row.back();
}

}  // namespace

std::string suggestion(std::string_view found, const std::vector<std::string>& known) {
  constexpr std::size_t kMostEdits = 3;
  constexpr std::size_t kLongest = 100;  // nobody means a name by more than this
  if (known.empty() || found.size() > kLongest) return "";
  const auto nearest = std::min_element(known.begin(), known.end(), [&](const std::string& a, const std::string& b) {
    return edit_distance(found, a) < edit_distance(found, b);
  });
  const std::size_t edits = edit_distance(found, *nearest);
  if (edits > kMostEdits || edits >= found.size()) return "";
  return fmt::format(" (did you mean \"{}\"?)", *nearest);
}

std::string to_string(const Value& value) {
  return std::visit(
      [](const auto& x) -> std::string {
        using T = std::decay_t<decltype(x)>;
        if constexpr (std::is_same_v<T, std::vector<double>>) {
          return fmt::format("[{}]", fmt::join(x, ","));
        } else {
          return fmt::format("{}", x);
        }
      },
      value);
}

template <class T>
T Params::take(const std::string& name, T fallback) {
  T value = std::move(fallback);
  if (const auto given = spec_->params.find(name); given != spec_->params.end()) {
    const std::optional<T> found = converted<T>(given->second);
    if (!found) {
      throw InputError(fmt::format("{}: {} is {}, expected {}", prefix(*spec_, kind_), name, to_string(given->second),
                                   kTypeName<T>));
    }
    value = *found;
  }
  resolved_[name] = value;
  return value;
}

template bool Params::take(const std::string&, bool);
template std::int64_t Params::take(const std::string&, std::int64_t);
template double Params::take(const std::string&, double);
template std::string Params::take(const std::string&, std::string);
template std::vector<double> Params::take(const std::string&, std::vector<double>);

std::int64_t Params::take_in(const std::string& name, std::int64_t fallback, std::int64_t low, std::int64_t high) {
  const std::int64_t value = take(name, fallback);
  if (value < low || value > high) {
    throw InputError(fmt::format("{}: {} is {}, expected {} to {}", prefix(*spec_, kind_), name, value, low, high));
  }
  return value;
}

double Params::take_in(const std::string& name, double fallback, double low, double high) {
  const double value = take(name, fallback);
  if (!(value >= low && value <= high)) {
    throw InputError(fmt::format("{}: {} is {}, expected {} to {}", prefix(*spec_, kind_), name, value, low, high));
  }
  return value;
}

std::string Params::take_choice(const std::string& name, const std::string& fallback,
                                const std::vector<std::string>& choices) {
  const std::string value = take(name, fallback);
  if (std::find(choices.begin(), choices.end(), value) == choices.end()) {
    throw InputError(fmt::format("{}: {} is \"{}\", expected one of {}{}", prefix(*spec_, kind_), name, value,
                                 fmt::join(choices, ", "), suggestion(value, choices)));
  }
  return value;
}

void Params::done() const {
  for (const auto& [name, value] : spec_->params) {
    if (resolved_.contains(name)) continue;
    std::vector<std::string> known;
    for (const auto& [key, unused] : resolved_) known.push_back(key);
    throw InputError(fmt::format("{} has no parameter \"{}\"{}; it has {}", prefix(*spec_, kind_), name,
                                 suggestion(name, known),
                                 known.empty() ? "none" : fmt::format("{}", fmt::join(known, ", "))));
  }
}

ParamValues Params::values() const { return {resolved_.begin(), resolved_.end()}; }

std::string Params::resolved() const {
  std::string text;
  for (const auto& [name, value] : resolved_) {
    const auto* words = std::get_if<std::string>(&value);
    text += fmt::format("{}{}={}", text.empty() ? "" : " ", name, words ? unambiguous(*words) : to_string(value));
  }
  return text;
}

}  // namespace depthkv
