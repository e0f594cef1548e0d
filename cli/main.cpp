// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cstdio>
#include <exception>

#include "cli/commands.h"
#include "depthkv/error.h"
#include "depthkv/version.h"

namespace depthkv {
namespace {

int exit_with(ExitCode code) { return static_cast<int>(code); }

int fail(ExitCode code, const std::string& message) {
  fmt::print(stderr, "depthkv: {}\n", message);
  return exit_with(code);
}

int run_main(int argc, char** argv) {
  CLI::App app("Record a model's KV cache once, replay every pruning policy on it, verify the best end to end.",
               "depthkv");
  app.set_version_flag("--version", kBuild);
  app.require_subcommand(1);
  app.footer(
      "Exit codes: 0 fine, 1 the work failed, 2 the command or plan was wrong, 3 some rows were skipped, 130 "
      "interrupted.");
  Action action;
  for (const auto add :
       {add_trace_command, add_replay_command, add_importance_command, add_verify_command, add_report_command,
        add_run_command, add_inspect_command, add_policies_command, add_doctor_command}) {
    add(app, action);
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {
    return app.exit(success);  // --help, --version
  } catch (const CLI::ParseError& error) {
    return fail(ExitCode::wrong_input, fmt::format("{}; run with --help for what is expected", error.what()));
  }
  return exit_with(action());
}

}  // namespace
}  // namespace depthkv

int main(int argc, char** argv) {
  using namespace depthkv;
  try {
    return run_main(argc, argv);
  } catch (const InputError& error) {
    return fail(ExitCode::wrong_input, error.what());
  } catch (const Interrupted& stop) {
    return fail(ExitCode::interrupted, stop.what());
  } catch (const std::exception& error) {
    return fail(ExitCode::failed, error.what());
  }
}
