// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <vector>

namespace depthkv {

struct CommandResult {
  int exit_code = -1;
  std::string output;  // stdout
  std::string errors;  // stderr
};

// Runs a program with arguments, without a shell, and waits for it.
CommandResult run_command(const std::vector<std::string>& command);

// The `depthkv` binary of this build with these arguments.
CommandResult run_depthkv(std::vector<std::string> arguments);

}  // namespace depthkv
