// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

namespace depthkv {

struct CommandResult {
  int exit_code = -1;
  std::string output;  // stdout
  std::string errors;  // stderr
};

// A program with arguments, started without a shell, its stdout and stderr in files of `folder`.
pid_t start_command(const std::vector<std::string>& command, const std::filesystem::path& folder);
// Waits for it to end.
CommandResult finish_command(pid_t child, const std::filesystem::path& folder);

// Runs a program and waits for it.
CommandResult run_command(const std::vector<std::string>& command);

// The `depthkv` binary of this build with these arguments.
CommandResult run_depthkv(std::vector<std::string> arguments);

}  // namespace depthkv
