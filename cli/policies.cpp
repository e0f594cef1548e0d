// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "depthkv/registry.h"

namespace depthkv {
namespace {

using Json = nlohmann::ordered_json;

// A policy as the lists show it, made with its defaults.
struct Row {
  std::string name;
  std::string summary;
  std::string paper;
  std::string cost;
  std::vector<std::string> needs;
  std::string group;  // scorers only
  bool bound = false;
  std::string unavailable;
  std::string params;
  ParamValues param_values;
};

struct Axis {
  std::string key;
  std::string title;
  std::vector<Row> rows;
};

std::vector<std::string> needs_list(const Needs& needs) {
  std::vector<std::string> list;
  for (const Feature feature : kFeatures) {
    if (!needs.has(feature)) continue;
    list.emplace_back(to_string(feature));
    if (feature == Feature::window && needs.window_rows > 0) list.back() += fmt::format(" ({})", needs.window_rows);
  }
  return list;
}

template <class Policy>
Row row_of(const Entry<Policy>& entry, const Policy& policy) {
  return {entry.name, entry.summary, entry.paper,   entry.cost,    needs_list(policy.needs),
          "",         false,         std::string(), policy.params, policy.param_values};
}

template <class Allocator>
Row allocator_row(const Entry<Allocator>& entry, const Allocator& allocator) {
  Row row = row_of(entry, allocator);
  if (allocator.observed_curves) row.needs.emplace_back("curves of observed rows");
  if (allocator.oracle) row.needs.emplace_back("curves of judged rows");
  row.bound = allocator.oracle;
  row.unavailable = allocator.unavailable;
  return row;
}

std::vector<Axis> axes_of(const Registry& registry) {
  std::vector<Axis> axes{
      {"scorers", "scorers (order the entries of each head)", {}},
      {"structures", "structures (say what is kept together; needs come on top of the scorer's)", {}},
      {"layer_allocators", "layer allocators (split the budget over layers)", {}},
      {"head_allocators", "head allocators (split a layer's budget over its heads)", {}}};
  for (const auto& entry : registry.scorers()) {
    const Scorer scorer = registry.make_scorer({entry.name, {}, ""});
    axes[0].rows.push_back(row_of(entry, scorer));
    axes[0].rows.back().group = scorer.group;
    axes[0].rows.back().bound = scorer.oracle;
    axes[0].rows.back().unavailable = scorer.unavailable;
  }
  for (const auto& entry : registry.structures()) {
    const Structure structure = registry.make_structure({entry.name, {}, ""});
    axes[1].rows.push_back(row_of(entry, structure));
    if (structure.positional) axes[1].rows.back().needs.emplace_back("a scorer of single positions");
  }
  for (const auto& entry : registry.layer_allocators())
    axes[2].rows.push_back(allocator_row(entry, registry.make_layer_allocator({entry.name, {}, ""})));
  for (const auto& entry : registry.head_allocators())
    axes[3].rows.push_back(allocator_row(entry, registry.make_head_allocator({entry.name, {}, ""})));
  return axes;
}

std::string needs_text(const Row& row) {
  return row.needs.empty() ? "nothing" : fmt::format("{}", fmt::join(row.needs, ", "));
}

std::string as_text(const std::vector<Axis>& axes) {
  std::string text;
  for (const Axis& axis : axes) {
    text += fmt::format("{}{}\n", text.empty() ? "" : "\n", axis.title);
    for (const Row& row : axis.rows) {
      const auto line = [&](const std::string& what) { text += fmt::format("  {:<16} {}\n", "", what); };
      text += fmt::format("  {:<16} {}\n", row.name, row.summary);
      line(fmt::format("needs {}{}; cost {}{}", needs_text(row),
                       row.group.empty() ? "" : fmt::format("; over a group: {}", row.group), row.cost,
                       row.bound ? "; a bound: it sees what a policy can't know" : ""));
      if (!row.paper.empty()) line("paper: " + row.paper);
      if (!row.params.empty()) line("parameters: " + row.params);
      if (!row.unavailable.empty()) line("as it is: " + row.unavailable);
    }
  }
  return text +
         "\nCosts come on top of loading: n positions, d dimensions, L layers, H KV heads; scorers and structures per "
         "layer and\nhead, allocators per split. A price is a look-up on a layer's curves.\n";
}

Json as_json(const Value& value) {
  return std::visit([](const auto& x) { return Json(x); }, value);
}

std::string as_json(const std::vector<Axis>& axes) {
  Json all = Json::object();
  for (const Axis& axis : axes) {
    Json& entries = all[axis.key] = Json::object();
    for (const Row& row : axis.rows) {
      Json params = Json::object();
      for (const auto& [name, value] : row.param_values) params[name] = as_json(value);
      Json& entry =
          entries[row.name] = {{"summary", row.summary}, {"paper", row.paper}, {"cost", row.cost},
                               {"needs", row.needs},     {"bound", row.bound}, {"unavailable", row.unavailable}};
      if (!row.group.empty()) entry["group"] = row.group;
      entry["parameters"] = params;
    }
  }
  return all.dump(2) + "\n";
}

std::string paper_link(const std::string& paper) {
  constexpr std::pair<std::string_view, std::string_view> kSites[] = {
      {"arXiv:", "https://arxiv.org/abs/"},
      {"doi:", "https://doi.org/"},
      {"openreview:", "https://openreview.net/forum?id="}};
  for (const auto& [prefix, site] : kSites) {
    if (paper.starts_with(prefix)) return fmt::format("[{}]({}{})", paper, site, paper.substr(prefix.size()));
  }
  return paper;
}

std::string as_markdown(const std::vector<Axis>& axes) {
  std::string text;
  for (const Axis& axis : axes) {
    std::string name = axis.key.substr(0, axis.key.size() - 1);
    std::ranges::replace(name, '_', ' ');
    text += fmt::format("{}| {} | what it does | paper | needs |\n|---|---|---|---|\n", text.empty() ? "" : "\n", name);
    for (const Row& row : axis.rows)
      text += fmt::format("| `{}` | {} | {} | {}{} |\n", row.name, row.summary, paper_link(row.paper), needs_text(row),
                          row.unavailable.empty() ? "" : "; " + row.unavailable);
  }
  return text;
}

struct PoliciesOptions {
  bool json = false;
  bool markdown = false;
};

}  // namespace

void add_policies_command(CLI::App& app, Action& action) {
  const auto given = std::make_shared<PoliciesOptions>();
  CLI::App* command =
      app.add_subcommand("policies", "List the policies that a plan can name, with needs, parameters and papers");
  command->footer("Examples:\n  depthkv policies\n  depthkv policies --json | jq '.scorers.snapkv.parameters'");
  CLI::Option* json = command->add_flag("--json", given->json, "for programs: one object per axis");
  command->add_flag("--markdown", given->markdown, "the tables of the README")->excludes(json);
  command->callback([given, &action] {
    action = [given] {
      const std::vector<Axis> axes = axes_of(builtin_policies());
      fmt::print("{}", given->json ? as_json(axes) : given->markdown ? as_markdown(axes) : as_text(axes));
      return ExitCode::fine;
    };
  });
}

}  // namespace depthkv
