// SPDX-License-Identifier: Apache-2.0
#include "cli/yaml_section.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "cli/plan.h"
#include "depthkv/error.h"

namespace depthkv {
namespace {

const char* kind(const YAML::Node& node) {
  if (node.IsScalar()) return "a single value";
  if (node.IsSequence()) return "a list";
  if (node.IsMap()) return "a mapping";
  return "nothing";
}

}  // namespace

// Nodes made from flags have no mark. A key without a flag of its own came with that of the section around it.
std::string YamlSource::where(const YAML::Node& node, const std::string& key) const {
  if (node.IsDefined() && !node.Mark().is_null()) return fmt::format("{}:{}", file.string(), node.Mark().line + 1);
  const Flag* nearest = nullptr;
  for (const Flag& flag : plan_flags()) {
    const std::string_view known = flag.key;
    const bool holds = key.starts_with(known) && (key.size() == known.size() || key[known.size()] == '.');
    if (holds && (nearest == nullptr || known.size() > std::string_view(nearest->key).size())) nearest = &flag;
  }
  return nearest == nullptr ? file.string() : nearest->flag;
}

std::string YamlSource::path_text(const std::string& text, const YAML::Node& node, const std::string& key) const {
  if (node.Mark().is_null()) return text;
  return with_variables(text, variables, fmt::format("{}: {}", where(node, key), key));
}

void YamlSource::note(const std::filesystem::path& path, const YAML::Node& node, const std::string& key) const {
  if (paths != nullptr) paths->push_back({where(node, key), key, path});
}

YamlSection::YamlSection(const YAML::Node& node, std::string name, const YamlSource& source)
    : node_(node), name_(std::move(name)), source_(source) {
  if (!node.IsMap()) {
    throw InputError(fmt::format("{}: {} is {}, expected a mapping of keys to values", source.where(node, name_),
                                 name_.empty() ? "the plan" : name_, kind(node)));
  }
  std::set<std::string> seen;
  for (const auto& entry : node) {
    if (!entry.first.IsScalar())
      throw InputError(
          fmt::format("{}: a key is {}, expected a name", source.where(entry.first, name_), kind(entry.first)));
    const std::string& key = entry.first.Scalar();
    if (!seen.insert(key).second)
      throw InputError(
          fmt::format("{}: {} is given twice; remove one", source.where(entry.first, path(key)), path(key)));
  }
}

bool YamlSection::has(const std::string& key) {
  known_.push_back(key);
  return node_[key].IsDefined() && !node_[key].IsNull();
}

std::string YamlSection::where(const std::string& key) const { return source_.where(node_[key], path(key)); }

std::string YamlSection::scalar(const std::string& key) const {
  const YAML::Node value = node_[key];
  if (!value.IsScalar())
    throw InputError(fmt::format("{}: {} is {}, expected a single value", where(key), path(key), kind(value)));
  return value.Scalar();
}

void YamlSection::take(const std::string& key, std::string& target) {
  if (has(key)) target = scalar(key);
}

void YamlSection::take(const std::string& key, std::int64_t& target, std::int64_t low, std::int64_t high) {
  if (!has(key)) return;
  std::int64_t value = 0;
  if (!YAML::convert<std::int64_t>::decode(node_[key], value)) {
    throw InputError(fmt::format("{}: {} is \"{}\", expected a whole number", where(key), path(key), scalar(key)));
  }
  if (value < low || value > high) {
    throw InputError(fmt::format("{}: {} is {}, expected {} to {}", where(key), path(key), value, low, high));
  }
  target = value;
}

void YamlSection::take(const std::string& key, double& target, double low, double high) {
  if (!has(key)) return;
  double value = 0;
  if (!YAML::convert<double>::decode(node_[key], value) || !(value >= low && value <= high)) {
    throw InputError(fmt::format("{}: {} is \"{}\", expected a number from {} to {}", where(key), path(key),
                                 scalar(key), low, high));
  }
  target = value;
}

void YamlSection::take(const std::string& key, bool& target) {
  target = take_choice(key, {"false", "true"}, target ? 1 : 0) == 1;
}

void YamlSection::take(const std::string& key, int& target, int low, int high) {
  std::int64_t value = target;
  take(key, value, low, high);
  target = static_cast<int>(value);
}

void YamlSection::take_path(const std::string& key, std::filesystem::path& target) {
  std::string text;
  take_path_text(key, text);
  if (text.empty()) return;
  target = (source_.file.parent_path() / text).lexically_normal();
  source_.note(target, node_[key], path(key));
}

void YamlSection::take_path_text(const std::string& key, std::string& target) {
  if (has(key)) target = source_.path_text(scalar(key), node_[key], path(key));
}

void YamlSection::take_names(const std::string& key, std::vector<std::string>& target) {
  if (!has(key)) return;
  target.clear();
  for (const YAML::Node& item : items(key)) {
    if (!item.IsScalar())
      throw InputError(fmt::format("{}: {} holds something else than names", where(key), path(key)));
    target.push_back(item.Scalar());
  }
}

void YamlSection::take_keeps(const std::string& key, std::vector<double>& target) {
  if (!has(key)) return;
  target.clear();
  for (const YAML::Node& item : items(key)) {
    double value = 0;
    if (!item.IsScalar() || !YAML::convert<double>::decode(item, value)) {
      throw InputError(fmt::format("{}: {} holds \"{}\", expected numbers", source_.where(item, path(key)), path(key),
                                   item.IsScalar() ? item.Scalar() : kind(item)));
    }
    if (!(value > 0 && value <= 1)) {
      throw InputError(fmt::format("{}: {} is {}, expected the kept share of the cache: more than 0, at most 1",
                                   source_.where(item, path(key)), path(key), value));
    }
    if (std::find(target.begin(), target.end(), value) != target.end()) {
      throw InputError(
          fmt::format("{}: {} has {} twice; remove one", source_.where(item, path(key)), path(key), value));
    }
    target.push_back(value);
  }
}

std::size_t YamlSection::take_choice(const std::string& key, const std::vector<std::string>& choices,
                                     std::size_t fallback) {
  if (!has(key)) return fallback;
  const std::string found = scalar(key);
  const auto at = std::find(choices.begin(), choices.end(), found);
  if (at == choices.end()) {
    throw InputError(fmt::format("{}: {} is \"{}\", expected one of {}{}", where(key), path(key), found,
                                 fmt::join(choices, ", "), suggestion(found, choices)));
  }
  return static_cast<std::size_t>(at - choices.begin());
}

std::vector<YAML::Node> YamlSection::items(const std::string& key) {
  const YAML::Node value = node_[key];
  if (!value.IsSequence()) return {value};
  if (value.size() == 0)
    throw InputError(fmt::format("{}: {} is empty; name at least one, or leave the key out", where(key), path(key)));
  return {value.begin(), value.end()};
}

void YamlSection::done() const {
  for (const auto& entry : node_) {
    const std::string& key = entry.first.Scalar();
    if (std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
    throw InputError(fmt::format("{}: unknown key \"{}\"{}{}", source_.where(entry.first, path(key)), key,
                                 name_.empty() ? "" : fmt::format(" in {}", name_), suggestion(key, known_)));
  }
}

}  // namespace depthkv
