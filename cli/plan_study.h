// SPDX-License-Identifier: Apache-2.0
// The section `study` of a plan. Private to cli/.
#pragma once
#include "cli/plan.h"
#include "cli/yaml_section.h"

namespace depthkv {

// Stands for the importance.json that the run itself measures, as the parameter `file` of a layer allocator.
inline constexpr std::string_view kStudyFile = "study";

// `keep` holds where the section has none.
StudyPlan read_study(const YAML::Node& node, const YamlSource& source, std::vector<double> keep);
std::string study_yaml(const StudyPlan& plan);

// The plan with another file for that word; none: the allocators as they are without a file.
ReplayPlan with_study_file(ReplayPlan plan, const std::filesystem::path& file);
bool names_study_file(const ReplayPlan& plan);

}  // namespace depthkv
