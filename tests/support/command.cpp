// SPDX-License-Identifier: Apache-2.0
#include "support/command.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/files.h"
#include "support/scratch.h"

namespace depthkv {
namespace {

void redirect(int stream, const std::filesystem::path& file) {
  const int descriptor = open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  dup2(descriptor, stream);
}

}  // namespace

pid_t start_command(const std::vector<std::string>& command, const std::filesystem::path& folder) {
  std::vector<char*> arguments;
  for (const std::string& argument : command)
    arguments.push_back(const_cast<char*>(argument.c_str()));  // execvp's signature
  arguments.push_back(nullptr);
  const auto out = folder / "out";
  const auto err = folder / "err";
  const pid_t child = fork();
  if (child == 0) {
    redirect(STDOUT_FILENO, out);
    redirect(STDERR_FILENO, err);
    execvp(arguments[0], arguments.data());
    _exit(127);
  }
  return child;
}

CommandResult finish_command(pid_t child, const std::filesystem::path& folder) {
  int status = 0;
  waitpid(child, &status, 0);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), read_text(folder / "out"),
          read_text(folder / "err")};
}

CommandResult run_command(const std::vector<std::string>& command) {
  const ScratchDirectory scratch;
  return finish_command(start_command(command, scratch.path()), scratch.path());
}

CommandResult run_depthkv(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), DEPTHKV_BINARY);
  return run_command(arguments);
}

}  // namespace depthkv
