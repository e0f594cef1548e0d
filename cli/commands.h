// SPDX-License-Identifier: Apache-2.0
// One function per subcommand, in files of the same name.
#pragma once
#include <CLI/CLI.hpp>
#include <functional>
#include <initializer_list>
#include <string_view>

#include "cli/pipeline.h"
#include "cli/plan.h"

namespace depthkv {

// What the chosen subcommand will do.
using Action = std::function<ExitCode()>;

void add_trace_command(CLI::App& app, Action& action);
void add_replay_command(CLI::App& app, Action& action);
void add_verify_command(CLI::App& app, Action& action);
void add_importance_command(CLI::App& app, Action& action);
void add_report_command(CLI::App& app, Action& action);
void add_run_command(CLI::App& app, Action& action);
void add_inspect_command(CLI::App& app, Action& action);
void add_policies_command(CLI::App& app, Action& action);
void add_doctor_command(CLI::App& app, Action& action);

// Adds the plan's flags whose key starts with one of the prefixes; given values end up in `overrides`.
void add_plan_flags(CLI::App& command, Overrides& overrides, std::initializer_list<std::string_view> prefixes);

}  // namespace depthkv
