// SPDX-License-Identifier: Apache-2.0
// Strict reading of one YAML mapping: every key is taken once, and what nobody took is an error.
#pragma once
#include <yaml-cpp/yaml.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "cli/plan_paths.h"

namespace depthkv {

inline constexpr std::int64_t kMany = 1'000'000'000;  // more than any count in a plan

// Where a value came from, for messages: "plan.yaml:7", or the flag's name for values of the command line.
struct YamlSource {
  std::filesystem::path file;
  Variables variables = {};
  std::vector<PlanPath>* paths = nullptr;  // where paths are noted down as they are read, or none

  std::string where(const YAML::Node& node, const std::string& key) const;
  // A path as written, but for variables; `node` is what it stands in. Shells have replaced those of the command line.
  std::string path_text(const std::string& text, const YAML::Node& node, const std::string& key) const;
  void note(const std::filesystem::path& path, const YAML::Node& node, const std::string& key) const;
};

class YamlSection {
 public:
  // `name`: dotted path of the section, "" for the root. Throws
  // InputError unless `node` is a mapping without repeated keys.
  YamlSection(const YAML::Node& node, std::string name, const YamlSource& source);

  bool has(const std::string& key);  // also marks the key as known
  YAML::Node node(const std::string& key) const { return node_[key]; }
  std::string where(const std::string& key) const;
  std::string path(const std::string& key) const { return name_.empty() ? key : name_ + "." + key; }

  // Each leaves `target` as it is when the key is absent. Throw InputError on another type or a value out of range.
  void take(const std::string& key, std::string& target);
  void take(const std::string& key, std::int64_t& target, std::int64_t low, std::int64_t high);
  void take(const std::string& key, int& target, int low, int high);
  void take(const std::string& key, double& target, double low, double high);
  void take(const std::string& key, bool& target);
  void take_path(const std::string& key, std::filesystem::path& target);
  void take_names(const std::string& key, std::vector<std::string>& target);
  void take_path_text(const std::string& key, std::string& target);      // a path or a word
  void take_keeps(const std::string& key, std::vector<double>& target);  // numbers in (0, 1], distinct, at least one
  // The position of the value among `choices`, or `fallback`.
  std::size_t take_choice(const std::string& key, const std::vector<std::string>& choices, std::size_t fallback);

  // Items of a list; a single scalar or mapping counts as a list of one. Throws InputError on an empty list.
  std::vector<YAML::Node> items(const std::string& key);

  // Throws InputError naming the first key that was never asked for, with the nearest one that exists.
  void done() const;

 private:
  std::string scalar(const std::string& key) const;

  YAML::Node node_;
  std::string name_;
  const YamlSource& source_;
  std::vector<std::string> known_;
};

}  // namespace depthkv
