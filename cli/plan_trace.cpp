// SPDX-License-Identifier: Apache-2.0
#include "cli/plan_trace.h"

#include <fmt/format.h>

#include <algorithm>

#include "depthkv/error.h"

namespace depthkv {
namespace {

const std::vector<std::string> kFormats{"tasks", "text", "chat"};

// Names of a format's fields in the file.
std::map<std::string, std::string> read_fields(const YAML::Node& node, const std::string& path, TaskFormat format,
                                               const YamlSource& source) {
  YamlSection section(node, path, source);
  if (task_fields(format).empty())
    throw InputError(fmt::format("{}: {} is given for a plain text, which has no fields; remove it",
                                 source.where(node, path), path));
  std::map<std::string, std::string> fields;
  for (const std::string& field : task_fields(format)) {
    std::string name;
    section.take(field, name);
    if (!name.empty()) fields[field] = name;
  }
  section.done();
  return fields;
}

TaskSample read_defaults(const YAML::Node& node, const std::string& path, TaskFormat format, const YamlSource& source) {
  TaskSample sample;
  YamlSection section(node, path, source);
  section.take("task", sample.task);
  if (format != TaskFormat::chat) section.take("question", sample.question);
  section.take("max_new_tokens", sample.max_new_tokens, 0, TaskSample::kAnyLength);
  const std::vector<std::string>& metrics = metric_names();
  const auto none = std::find(metrics.begin(), metrics.end(), sample.metric) - metrics.begin();
  sample.metric = metrics[section.take_choice("metric", metrics, static_cast<std::size_t>(none))];
  section.take("source", sample.source);
  section.take("license", sample.license);
  section.done();
  return sample;
}

TaskSource read_source(const YAML::Node& node, const YamlSource& source) {
  const std::string path = "trace.tasks";
  TaskSource task;
  YAML::Node entry = node;
  if (node.IsScalar()) {
    entry.reset();
    entry["path"] = node;
  }
  YamlSection section(entry, path, source);
  section.take_path("path", task.file);
  if (task.file.empty())
    throw InputError(
        fmt::format("{}: {} holds an entry without a path; write a file name, or {{path: ..., format: ...}}",
                    source.where(node, path), path));
  const std::optional<TaskFormat> known = format_by_extension(task.file);
  if (!section.has("format") && !known) {
    throw InputError(
        fmt::format("{}: {} has {}, expected a name that ends in .jsonl or .txt; or say which format it "
                    "is: one of {}",
                    section.where("path"), path, task.file.filename().string(), fmt::join(kFormats, ", ")));
  }
  task.format = static_cast<TaskFormat>(
      section.take_choice("format", kFormats, static_cast<std::size_t>(known.value_or(TaskFormat::tasks))));
  if (section.has("fields"))
    task.fields = read_fields(section.node("fields"), section.path("fields"), task.format, source);
  if (section.has("defaults"))
    task.defaults = read_defaults(section.node("defaults"), section.path("defaults"), task.format, source);
  section.done();
  return task;
}

// "a=b,c=d" as a mapping. A part without "=" goes on with the value before it, commas and all.
YAML::Node mapping_of(const std::string& text, const std::string& key) {
  std::vector<std::pair<std::string, std::string>> entries;
  std::size_t begin = 0;
  while (begin <= text.size()) {
    const std::size_t comma = std::min(text.find(',', begin), text.size());
    const std::string part = text.substr(begin, comma - begin);
    const std::size_t equals = part.find('=');
    if (equals != std::string::npos && equals > 0) {
      entries.emplace_back(part.substr(0, equals), part.substr(equals + 1));
    } else if (!entries.empty()) {
      entries.back().second += "," + part;
    } else {
      throw InputError(fmt::format("--{}: \"{}\" is not name=value,name=value", key, text));
    }
    begin = comma + 1;
  }
  YAML::Node node(YAML::NodeType::Map);
  for (const auto& [name, value] : entries) {
    if (node[name].IsDefined()) throw InputError(fmt::format("--{}: {} is given twice; remove one", key, name));
    node[name] = value;
  }
  return node;
}

}  // namespace

TracePlan read_trace(const YAML::Node& node, const YamlSource& source) {
  TracePlan plan;
  YamlSection section(node, "trace", source);
  if (section.has("tasks")) {
    for (const YAML::Node& item : section.items("tasks")) plan.tasks.push_back(read_source(item, source));
  }
  section.take("limit", plan.limit, 0, kMany);
  section.take("max_prompt", plan.max_prompt, 0, kMany);
  plan.truncate = static_cast<Truncate>(section.take_choice("truncate", {"error", "middle", "end"}, 0));
  section.take("max_new", plan.max_new, 1, kMany);
  std::vector<std::string> presets;
  for (const Preset preset : kPresets) presets.emplace_back(to_string(preset));
  apply_preset(kPresets[section.take_choice("preset", presets, 0)], plan);  // and the keys below win over it
  if (section.has("channels")) {
    std::vector<std::string> names;
    for (const YAML::Node& item : section.items("channels")) names.push_back(item.IsScalar() ? item.Scalar() : "?");
    plan.channels = parse_channels(names, section.where("channels"));
  }
  // A YAML list of layers is what "0,3,7" says on the command line.
  if (section.has("attention") && section.node("attention").IsSequence()) {
    plan.attention.clear();
    for (const YAML::Node& item : section.items("attention")) {
      plan.attention += (plan.attention.empty() ? "" : ",") + (item.IsScalar() ? item.Scalar() : "?");
    }
  } else {
    section.take("attention", plan.attention);
  }
  const std::vector<std::string> queries{"rows", "all"};
  plan.engine_softmax = section.take_choice("softmax", {"recomputed", "engine"}, 0) == 1;
  const std::vector<std::string> codecs{"zstd", "deflate", "none"};
  plan.queries = queries[section.take_choice("queries", queries, plan.queries == "all" ? 1 : 0)];
  plan.codec = codecs[section.take_choice("codec", codecs, 0)];
  section.done();
  if (plan.tasks.empty())
    throw InputError(fmt::format("{}: trace.tasks names no task file", source.where(node, "trace.tasks")));
  return plan;
}

void apply_to_tasks(YAML::Node trace, const std::string& key, const std::vector<std::string>& values) {
  const YAML::Node tasks = trace["tasks"];
  if (!tasks.IsDefined() || tasks.IsNull()) {
    trace["tasks"] = YAML::Node();  // nothing to hold for is an error of its own
    return;
  }
  const YAML::Node value =
      key == "format" ? YAML::Node(values.back()) : mapping_of(fmt::format("{}", fmt::join(values, ",")), key);
  YAML::Node entries(YAML::NodeType::Sequence);
  const auto add = [&](const YAML::Node& item) {
    YAML::Node entry(YAML::NodeType::Map);
    if (item.IsMap()) {
      for (const auto& pair : item) entry[pair.first] = pair.second;
    } else {
      entry["path"] = item;
    }
    entry[key] = value;
    entries.push_back(entry);
  };
  if (tasks.IsSequence()) {
    for (const YAML::Node& item : tasks) add(item);
  } else {
    add(tasks);
  }
  trace["tasks"] = entries;
}

}  // namespace depthkv
