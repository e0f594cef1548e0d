// SPDX-License-Identifier: Apache-2.0
// YAML and flags to a Plan.
#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <fstream>

#include "cli/plan_study.h"
#include "cli/plan_trace.h"
#include "depthkv/error.h"

namespace depthkv {
namespace {

constexpr int kMostThreads = 1024;
constexpr int kMostBatch = 1 << 16;
constexpr std::string_view kOfTasks = "trace.tasks.";  // keys of every entry of trace.tasks

// true, 3, 0.5, text: the narrowest type that the text can be.
Value scalar_value(const YAML::Node& node) {
  std::int64_t whole = 0;
  double real = 0;
  if (node.Tag() != "!") {  // "!": quoted, which means text
    if (node.Scalar() == "true" || node.Scalar() == "false") return node.Scalar() == "true";
    if (YAML::convert<std::int64_t>::decode(node, whole)) return whole;
    if (YAML::convert<double>::decode(node, real)) return real;
  }
  return node.Scalar();
}

Value param_value(const YAML::Node& node, const std::string& where) {
  if (node.IsScalar()) return scalar_value(node);
  std::vector<double> list;
  if (!node.IsSequence()) throw InputError(fmt::format("{}: expected a value or a list of numbers", where));
  for (const auto& item : node) {
    double value = 0;
    if (!item.IsScalar() || !YAML::convert<double>::decode(item, value))
      throw InputError(fmt::format("{}: expected a list of numbers", where));
    list.push_back(value);
  }
  return list;
}

// "snapkv:window=32,kernel=5" as the mapping {name: snapkv,
// window: 32, kernel: 5}; a part without "=" continues a list.
YAML::Node expanded(const std::string& text, const std::string& where) {
  YAML::Node node;
  const auto colon = text.find(':');
  node["name"] = text.substr(0, colon);
  std::string rest = colon == std::string::npos ? "" : text.substr(colon + 1);
  std::string key;
  while (!rest.empty()) {
    const auto comma = rest.find(',');
    const std::string part = rest.substr(0, comma);
    rest = comma == std::string::npos ? "" : rest.substr(comma + 1);
    const auto equals = part.find('=');
    if (equals != std::string::npos) {
      key = part.substr(0, equals);
      node[key] = part.substr(equals + 1);
    } else if (key.empty()) {
      throw InputError(fmt::format("{}: \"{}\" is not name:key=value,key=value", where, text));
    } else {
      if (!node[key].IsSequence()) {
        YAML::Node list;
        list.push_back(node[key].Scalar());
        node[key] = list;
      }
      node[key].push_back(part);
    }
  }
  return node;
}

// A path among a policy's parameters: relative to the plan, or on the command line to the working directory. `entry`
// is the policy's. The word that stands for the study's file stays.
Value absolute_path(const Value& value, const YAML::Node& entry, const std::string& key, const YamlSource& source) {
  const auto* written = std::get_if<std::string>(&value);
  const std::string text = written == nullptr ? "" : source.path_text(*written, entry, key);
  if (text.empty() || text == kStudyFile) return value;
  const std::filesystem::path folder = entry.Mark().is_null() ? "" : source.file.parent_path();
  const std::filesystem::path path = std::filesystem::absolute(folder / text).lexically_normal();
  source.note(path, entry, key);
  return path.string();
}

PolicySpec read_spec(const YAML::Node& entry, const std::string& path, const YamlSource& source) {
  PolicySpec spec;
  spec.where = source.where(entry, path);
  const YAML::Node node = entry.IsScalar() ? expanded(entry.Scalar(), spec.where) : entry;
  if (!node.IsMap() || !node["name"] || !node["name"].IsScalar()) {
    throw InputError(fmt::format(
        "{}: {} holds an entry without a name; write a name, or {{name: ..., parameter: value}}", spec.where, path));
  }
  for (const auto& param : node) {
    const std::string key = param.first.IsScalar() ? param.first.Scalar() : "?";
    if (key == "name") {
      spec.name = param.second.Scalar();
      continue;
    }
    Value value = param_value(param.second, spec.where);
    if (is_path_parameter(key)) value = absolute_path(value, entry, path + "." + key, source);
    if (!spec.params.emplace(key, value).second)
      throw InputError(fmt::format("{}: parameter {} is given twice", spec.where, key));
  }
  return spec;
}

// Every policy of an axis that runs without further input.
template <class Policy>
std::vector<PolicySpec> all_of(const std::vector<Entry<Policy>>& entries, const Registry& registry,
                               Policy (Registry::*make)(const PolicySpec&) const) {
  std::vector<PolicySpec> specs;
  for (const auto& entry : entries) {
    const PolicySpec spec{entry.name, {}, "built in"};
    const Policy policy = (registry.*make)(spec);
    if constexpr (requires { policy.unavailable; }) {
      if (!policy.unavailable.empty()) continue;
    }
    specs.push_back(spec);
  }
  return specs;
}

// Words that stand for several policies.
using Words = std::map<std::string, std::vector<PolicySpec>>;

// sweep: the scorers that run on whatever is recorded by default, of any sample.
Words scorer_words(const Registry& registry) {
  Words words{{"all", all_of(registry.scorers(), registry, &Registry::make_scorer)}};
  for (const PolicySpec& spec : words["all"]) {
    const Needs wanted = registry.make_scorer(spec).needs;
    const bool special = wanted.has(Feature::question) || wanted.has(Feature::queries) || wanted.has(Feature::hidden) ||
                         wanted.has(Feature::cosines) || wanted.has(Feature::repeated) ||
                         wanted.window_rows > kRecordedWindow;
    if (!special) words["sweep"].push_back(spec);
  }
  return words;
}

void read_specs(YamlSection& section, const std::string& key, const YamlSource& source, const Words& words,
                std::vector<PolicySpec>& specs) {
  if (!section.has(key)) return;
  specs.clear();
  for (const YAML::Node& item : section.items(key)) {
    const PolicySpec spec = read_spec(item, section.path(key), source);
    const auto several = words.find(spec.name);
    if (several == words.end()) {
      specs.push_back(spec);
      continue;
    }
    if (!spec.params.empty())
      throw InputError(
          fmt::format("{}: \"{}\" takes no parameters; name the policy that they are for", spec.where, spec.name));
    specs.insert(specs.end(), several->second.begin(), several->second.end());
  }
}

Protect read_protect(const YAML::Node& node, const std::string& path, const YamlSource& source) {
  const auto bad = [&] {
    return InputError(
        fmt::format("{}: {} holds something else than {{first: 4, last: 32}} or 4+32", source.where(node, path), path));
  };
  Protect protect{0, 0};
  if (node.IsScalar()) {
    const std::string text = node.Scalar();
    const auto plus = text.find('+');
    if (plus == std::string::npos ||
        !YAML::convert<std::int64_t>::decode(YAML::Node(text.substr(0, plus)), protect.first) ||
        !YAML::convert<std::int64_t>::decode(YAML::Node(text.substr(plus + 1)), protect.last) || protect.first < 0 ||
        protect.last < 0) {
      throw bad();
    }
    return protect;
  }
  if (!node.IsMap()) throw bad();
  YamlSection section(node, path, source);
  section.take("first", protect.first, 0, kMany);
  section.take("last", protect.last, 0, kMany);
  section.done();
  return protect;
}

void read_replay(const YAML::Node& node, const YamlSource& source, const Registry& registry, ReplayPlan& plan) {
  YamlSection section(node, "replay", source);
  plan.cut = static_cast<Cut>(section.take_choice("cut", {"context", "prompt"}, static_cast<std::size_t>(plan.cut)));
  read_specs(section, "scorers", source, scorer_words(registry), plan.scorers);
  read_specs(section, "structures", source,
             {{"all", all_of(registry.structures(), registry, &Registry::make_structure)}}, plan.structures);
  if (section.has("protect")) {
    plan.protect.clear();
    for (const YAML::Node& item : section.items("protect"))
      plan.protect.push_back(read_protect(item, "replay.protect", source));
  }
  read_specs(section, "layer_allocators", source,
             {{"all", all_of(registry.layer_allocators(), registry, &Registry::make_layer_allocator)}},
             plan.layer_allocators);
  read_specs(section, "head_allocators", source,
             {{"all", all_of(registry.head_allocators(), registry, &Registry::make_head_allocator)}},
             plan.head_allocators);
  section.take_keeps("keep", plan.keep);
  section.take("observed_rows", plan.observed_rows, 1, kRecordedWindow);
  section.take_path("importance", plan.importance);
  constexpr std::size_t kAuto = 3;
  const std::size_t device =
      section.take_choice("device", {"cpu", "reference", "cuda", "auto"}, static_cast<std::size_t>(plan.device));
  plan.device = device == kAuto ? fastest_device() : static_cast<Device>(device);
  section.done();
}

VerifyPlan read_verify(const YAML::Node& node, const YamlSource& source, const ReplayPlan& replay) {
  VerifyPlan plan;
  YamlSection section(node, "verify", source);
  section.take("top", plan.top, 1, kMany);
  section.take("controls", plan.controls, 0, kMany);
  section.take_names("scorers", plan.scorers);
  section.take_keeps("keep", plan.keep);
  plan.rank_by = static_cast<Metric>(
      section.take_choice("rank_by", replay_metric_names(), static_cast<std::size_t>(plan.rank_by)));
  std::int64_t seed = static_cast<std::int64_t>(plan.seed);
  section.take("seed", seed, 0, std::numeric_limits<std::int64_t>::max());
  plan.seed = static_cast<std::uint64_t>(seed);
  section.take("max_new", plan.max_new, 0, kMany);
  section.take("reference", plan.reference, 0, kMany);
  section.take("bounds", plan.bounds);
  section.take("stop_when_separate", plan.stop_when_separate, 0, kMany);
  section.done();
  for (const double keep : plan.keep) {
    if (std::find(replay.keep.begin(), replay.keep.end(), keep) != replay.keep.end()) continue;
    throw InputError(fmt::format("{}: verify.keep has {}, replay.keep only {}; verify checks what was replayed",
                                 section.where("keep"), keep, fmt::join(replay.keep, ", ")));
  }
  return plan;
}

bool is_cache_word(const std::string& text) { return text == "auto" || text == "none"; }

// A word stays one; anything else is a folder, relative to the file.
void read_cache(YamlSection& section, const YamlSource& source, std::string& cache) {
  section.take_path_text("cache", cache);
  if (cache.empty() || is_cache_word(cache)) return;
  cache = std::filesystem::absolute(source.file.parent_path() / cache).lexically_normal().string();
}

YAML::Node read_root(const std::filesystem::path& file) {
  if (file.empty()) return YAML::Node(YAML::NodeType::Map);
  std::ifstream stream(file);
  if (!stream || std::filesystem::is_directory(file))
    throw InputError(fmt::format("{}: no such plan; see configs/ for examples", file.string()));
  try {
    YAML::Node root = YAML::Load(stream);
    return root.IsNull() ? YAML::Node(YAML::NodeType::Map) : root;
  } catch (const YAML::Exception& error) {
    throw InputError(fmt::format("{}:{}: not valid YAML: {}", file.string(), error.mark.line + 1, error.msg));
  }
}

// Sets what the command line gave, on top of the file. Paths
// are made absolute, since the file's own are relative to it.
void apply(YAML::Node root, const Overrides& overrides) {
  if (overrides.contains("traces")) root.remove("trace");  // recorded already
  for (const auto& [key, values] : overrides) {
    YAML::Node value;
    const bool is_path =
        key == "model" || key == "traces" || key == "trace.tasks" || key == "cache" || key == "replay.importance";
    const auto text = [&](const std::string& given) {
      return is_path && !is_cache_word(given) ? std::filesystem::absolute(given).string() : given;
    };
    const auto dot = key.find('.');
    const std::string section = key.substr(0, dot);
    if (root[section].IsDefined() && dot != std::string::npos && !root[section].IsMap()) continue;  // refused later
    if (key.starts_with(kOfTasks)) {
      apply_to_tasks(root[section], key.substr(kOfTasks.size()), values);
      continue;
    }
    if (std::any_of(plan_flags().begin(), plan_flags().end(),
                    [&](const Flag& flag) { return flag.list && key == flag.key; })) {
      for (const std::string& given : values) value.push_back(text(given));
    } else {
      value = text(values.back());
    }
    if (dot == std::string::npos) {
      root[key] = value;
    } else {
      root[section][key.substr(dot + 1)] = value;
    }
  }
}

// What of the plan's paths a run of it reads: the model only where it is run.
std::vector<PlanPath> needed(const Plan& plan, std::vector<PlanPath> paths, const std::string& where) {
  const auto model = [](const PlanPath& named) { return named.key == "model"; };
  if (!plan.trace && !plan.verify && !plan.study) {
    std::erase_if(paths, model);
  } else if (std::ranges::none_of(paths, model)) {
    paths.insert(paths.begin(), {plan.model.empty() ? where : "DEPTHKV_MODEL", "model", plan.model});
  }
  return paths;
}

}  // namespace

Plan load_plan(const std::filesystem::path& file, const Overrides& overrides, const Registry& registry,
               const PlanSetting& setting) {
  const YAML::Node root = read_root(file);
  std::vector<PlanPath> paths;
  const YamlSource source{file, setting.variables, &paths};
  YamlSection section(root, "", source);
  apply(root, overrides);
  Plan plan;
  plan.model = setting.model;
  section.take_path("model", plan.model);
  section.take("threads", plan.threads, 0, kMostThreads);
  section.take("batch", plan.batch, 1, kMostBatch);
  section.take_path("traces", plan.traces);
  read_cache(section, source, plan.cache);
  if (section.has("trace")) plan.trace = read_trace(section.node("trace"), source);
  plan.replay.scorers = scorer_words(registry).at("sweep");
  for (const char* name : {"uniform", "pyramid", "depthkv", "oracle"})
    plan.replay.layer_allocators.push_back({name, {}, "built in"});
  for (const char* name : {"uniform", "adakv"}) plan.replay.head_allocators.push_back({name, {}, "built in"});
  if (section.has("replay")) read_replay(section.node("replay"), source, registry, plan.replay);
  if (section.has("verify")) plan.verify = read_verify(section.node("verify"), source, plan.replay);
  if (section.has("study"))
    plan.study = read_study(section.node("study"), source, plan.verify ? plan.verify->keep : plan.replay.keep);
  section.done();
  if (!plan.study && names_study_file(plan.replay))
    throw InputError(
        fmt::format("{}: a layer allocator has file={}, which the section `study` would measure, and the "
                    "plan has none; add it, or name a file",
                    section.where("replay"), kStudyFile));
  if (plan.trace && !plan.traces.empty()) {
    throw InputError(fmt::format("{}: the plan has both traces (a recorded set) and trace (record one); keep one",
                                 section.where("traces")));
  }
  plan.replay.threads = plan.threads;
  if (setting.expect_files) expect_there(needed(plan, paths, section.where("model")));
  make_policies(with_study_file(plan.replay, {}), registry);  // names and parameters are wrong now or never
  if (plan.trace) {
    plan.trace->model = plan.model;
    plan.trace->threads = plan.threads;
  }
  return plan;
}

}  // namespace depthkv
