// SPDX-License-Identifier: Apache-2.0
// A Plan to YAML, with every default spelled out.
#include <fmt/format.h>

#include <cmath>
#include <fstream>
#include <iterator>

#include "cli/plan_paths.h"
#include "cli/plan_study.h"

namespace depthkv {
namespace {

// Paths and other text as a double-quoted YAML scalar.
std::string quoted(const std::string& text) {
  std::string safe = "\"";
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x20) {
      safe += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      safe += c == '"' || c == '\\' ? std::string("\\") + c : std::string(1, c);
    }
  }
  return safe + "\"";
}

// As load_plan() takes it: text that looks like a variable is none.
std::string path_yaml(const std::filesystem::path& path) { return quoted(without_variables(path.string())); }

std::string absolute_yaml(const std::filesystem::path& path) { return path_yaml(std::filesystem::absolute(path)); }

// Text is quoted, so that it reads back as text whatever it looks like.
std::string value_yaml(const Value& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return quoted(*text);
  if (const auto* real = std::get_if<double>(&value); real != nullptr && std::isinf(*real))
    return *real > 0 ? ".inf" : "-.inf";
  return to_string(value);
}

// One entry of an axis: its name and every parameter.
template <class Policy>
std::string policy_yaml(const Policy& policy) {
  std::string text = fmt::format("    - {{name: {}", policy.name);
  for (const auto& [name, value] : policy.param_values) {
    const auto* path = is_path_parameter(name) ? std::get_if<std::string>(&value) : nullptr;
    text += fmt::format(", {}: {}", name, path != nullptr ? path_yaml(*path) : value_yaml(value));
  }
  return text + "}\n";
}

std::string source_yaml(const TaskSource& source) {
  std::string text =
      fmt::format("    - path: {}\n      format: {}\n", absolute_yaml(source.file), to_string(source.format));
  if (!source.fields.empty()) {
    std::vector<std::string> names;
    for (const auto& [field, name] : source.fields) names.push_back(fmt::format("{}: {}", field, quoted(name)));
    text += fmt::format("      fields: {{{}}}\n", fmt::join(names, ", "));
  }
  const TaskSample& defaults = source.defaults;
  text += fmt::format("      defaults: {{task: {}, ", quoted(defaults.task));
  if (source.format != TaskFormat::chat) text += fmt::format("question: {}, ", quoted(defaults.question));
  text += fmt::format("max_new_tokens: {}, metric: {}, source: {}, license: {}}}\n", defaults.max_new_tokens,
                      defaults.metric, quoted(defaults.source), quoted(defaults.license));
  return text;
}

std::string replay_yaml(const ReplayPlan& plan, const Registry& registry) {
  std::string text = fmt::format("replay:\n  cut: {}\n  scorers:\n", to_string(plan.cut));
  for (const PolicySpec& spec : plan.scorers) text += policy_yaml(registry.make_scorer(spec));
  text += "  structures:\n";
  for (const PolicySpec& spec : plan.structures) text += policy_yaml(registry.make_structure(spec));
  text += "  protect:\n";
  for (const Protect& protect : plan.protect)
    text += fmt::format("    - {{first: {}, last: {}}}\n", protect.first, protect.last);
  text += "  layer_allocators:\n";
  for (const PolicySpec& spec : plan.layer_allocators) text += policy_yaml(registry.make_layer_allocator(spec));
  text += "  head_allocators:\n";
  for (const PolicySpec& spec : plan.head_allocators) text += policy_yaml(registry.make_head_allocator(spec));
  text += fmt::format("  keep: [{}]\n  observed_rows: {}\n  device: {}\n", fmt::join(plan.keep, ", "),
                      plan.observed_rows, to_string(plan.device));
  if (!plan.importance.empty()) text += fmt::format("  importance: {}\n", absolute_yaml(plan.importance));
  return text;
}

std::string channel_list(const std::set<Channel>& channels) {
  std::string text;
  for (const Channel channel : channels) text += fmt::format("{}{}", text.empty() ? "" : ", ", to_string(channel));
  return text;
}

std::string trace_yaml(const TracePlan& plan) {
  std::string text = "trace:\n  tasks:\n";
  for (const TaskSource& source : plan.tasks) text += source_yaml(source);
  text += fmt::format("  limit: {}\n  truncate: {}\n  max_prompt: {}\n  max_new: {}\n", plan.limit,
                      to_string(plan.truncate), plan.max_prompt, plan.max_new);
  text += fmt::format("  channels: [{}]\n  attention: {}\n  queries: {}\n  softmax: {}\n  codec: {}\n",
                      channel_list(plan.channels), quoted(plan.attention), plan.queries,
                      plan.engine_softmax ? "engine" : "recomputed", plan.codec);
  return text;
}

// What stands in a file; "" where there is none.
std::string contents(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

// What stands in the files that a policy's parameters name.
template <class Policy>
std::string contents_of(const Policy& policy) {
  for (const auto& [name, value] : policy.param_values)
    if (name == "file") return contents(std::get<std::string>(value));
  return "";
}

}  // namespace

std::string to_yaml(const Plan& plan, const Registry& registry) {
  std::string text;
  if (!plan.model.empty()) text += fmt::format("model: {}\n", absolute_yaml(plan.model));
  text += fmt::format("threads: {}\nbatch: {}\n", plan.threads, plan.batch);
  if (!plan.traces.empty()) text += fmt::format("traces: {}\n", absolute_yaml(plan.traces));
  text += fmt::format("cache: {}\n", path_yaml(plan.cache));
  if (plan.trace) text += trace_yaml(*plan.trace);
  text += replay_yaml(plan.replay, registry);
  if (plan.verify) {
    text += fmt::format(
        "verify:\n  top: {}\n  controls: {}\n  keep: [{}]\n  rank_by: {}\n  seed: {}\n  max_new: {}\n"
        "  reference: {}\n  bounds: {}\n  stop_when_separate: {}\n",
        plan.verify->top, plan.verify->controls, fmt::join(plan.verify->keep, ", "), to_string(plan.verify->rank_by),
        plan.verify->seed, plan.verify->max_new, plan.verify->reference, plan.verify->bounds,
        plan.verify->stop_when_separate);
  }
  if (plan.verify && !plan.verify->scorers.empty())
    text += fmt::format("  scorers: [{}]\n", fmt::join(plan.verify->scorers, ", "));
  if (plan.study) text += study_yaml(*plan.study);
  return text;
}

std::string plan_hash(const ReplayPlan& plan, const Registry& registry) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;  // FNV-1a
  std::string text = replay_yaml(plan, registry);
  for (const PolicySpec& spec : plan.scorers) text += registry.make_scorer(spec).source;
  for (const PolicySpec& spec : plan.layer_allocators) text += contents_of(registry.make_layer_allocator(spec));
  for (const PolicySpec& spec : plan.head_allocators) text += contents_of(registry.make_head_allocator(spec));
  text += contents(plan.importance);
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return fmt::format("{:016x}", hash);
}

}  // namespace depthkv
