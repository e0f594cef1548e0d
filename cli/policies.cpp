// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "cli/commands.h"
#include "depthkv/registry.h"

namespace depthkv {
namespace {

template <class Policy>
void print_entry(const Entry<Policy>& entry, const Policy& policy, const std::string& remark) {
  fmt::print("  {:<12} {}{}\n", entry.name, entry.summary, remark);
  if (!entry.paper.empty()) fmt::print("  {:<12} paper: {}\n", "", entry.paper);
  if (!policy.params.empty()) fmt::print("  {:<12} parameters: {}\n", "", policy.params);
}

std::string needs_text(const Needs& needs) {
  constexpr std::pair<Feature, const char*> kNames[] = {{Feature::keys, "keys"},
                                                        {Feature::values, "values"},
                                                        {Feature::column_sums, "column sums"},
                                                        {Feature::window, "window"},
                                                        {Feature::judged, "judged rows"}};
  std::string text;
  for (const auto& [feature, name] : kNames) {
    if (needs.has(feature)) text += (text.empty() ? "" : ", ") + std::string(name);
  }
  return text.empty() ? "nothing" : text;
}

ExitCode list_policies() {
  const Registry registry = builtin_policies();
  fmt::print("scorers (order the entries of each head)\n");
  for (const auto& entry : registry.scorers()) {
    const Scorer scorer = registry.make_scorer({entry.name, {}, ""});
    print_entry(entry, scorer, fmt::format(" (needs {}; over a group: {})", needs_text(scorer.needs), scorer.group));
  }
  fmt::print("\nlayer allocators (split the budget over layers)\n");
  for (const auto& entry : registry.layer_allocators())
    print_entry(entry, registry.make_layer_allocator({entry.name, {}, ""}), "");
  fmt::print("\nhead allocators (split a layer's budget over its heads)\n");
  for (const auto& entry : registry.head_allocators())
    print_entry(entry, registry.make_head_allocator({entry.name, {}, ""}), "");
  return ExitCode::fine;
}

}  // namespace

void add_policies_command(CLI::App& app, Action& action) {
  CLI::App* command =
      app.add_subcommand("policies", "List the policies that a plan can name, with parameters and papers");
  command->callback([&action] { action = list_policies; });
}

}  // namespace depthkv
