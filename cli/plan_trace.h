// SPDX-License-Identifier: Apache-2.0
// The section `trace` of a plan. Private to cli/.
#pragma once
#include "cli/plan.h"
#include "cli/yaml_section.h"

namespace depthkv {

TracePlan read_trace(const YAML::Node& node, const YamlSource& source);

// Sets `key` of every entry of `tasks`, from name=value,name=value where the key holds a mapping. An entry that is a
// bare path becomes a mapping.
void apply_to_tasks(YAML::Node trace, const std::string& key, const std::vector<std::string>& values);

}  // namespace depthkv
