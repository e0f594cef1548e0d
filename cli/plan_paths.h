// SPDX-License-Identifier: Apache-2.0
// Paths that a plan names: variables in them, and whether they are there. Private to cli/.
#pragma once
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "cli/plan.h"

namespace depthkv {

// A file or folder that a plan reads, and who named it.
struct PlanPath {
  std::string where;  // "plan.yaml:3", or a flag
  std::string key;    // "trace.tasks.path"
  std::filesystem::path path;
};

// Replaces ${NAME} and ${NAME:-default} by a variable's value; $${ stands for ${. A variable without a value counts as
// one that isn't set. `what` begins messages. Throws InputError on one that isn't set and has no default.
std::string with_variables(const std::string& text, const Variables& variables, const std::string& what);
// Text that with_variables() gives back.
std::string without_variables(const std::string& text);

// Whether a policy's parameter of this name is a path.
bool is_path_parameter(std::string_view name);

// Throws InputError naming all that aren't there.
void expect_there(const std::vector<PlanPath>& paths);

}  // namespace depthkv
