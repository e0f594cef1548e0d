// SPDX-License-Identifier: Apache-2.0
#include "cli/plan_study.h"

#include <fmt/format.h>

#include "depthkv/error.h"

namespace depthkv {
namespace {

constexpr std::int64_t kMostDocuments = 1024;
constexpr std::int64_t kMostViews = 64;
constexpr std::int64_t kMostViewsInAll = 8192;  // their dot products are held as a square matrix

bool is_study_file(const PolicySpec& spec) {
  const auto file = spec.params.find("file");
  return file != spec.params.end() && file->second == Value(std::string(kStudyFile));
}

}  // namespace

StudyPlan read_study(const YAML::Node& node, const YamlSource& source, std::vector<double> keep) {
  StudyPlan plan;
  plan.keep = std::move(keep);
  YamlSection section(node, "study", source);
  section.take("learn", plan.learn, 0, kMany);
  section.take_keeps("keep", plan.keep);
  section.take("max_new", plan.max_new, 0, kMany);
  section.take("documents", plan.views.documents, 0, kMostDocuments);
  section.take("views", plan.views.views, 2, kMostViews);
  section.take("view_tokens", plan.views.tokens, 8, kMany);
  section.take("noise_words", plan.views.noise.words, 0, 1);
  section.take("noise_characters", plan.views.noise.characters, 0, 1);
  section.take("temperature", plan.views.temperature, 1e-3, 1e3);
  auto seed = static_cast<std::int64_t>(plan.views.seed);
  section.take("seed", seed, 0, std::numeric_limits<std::int64_t>::max());
  plan.views.seed = static_cast<std::uint64_t>(seed);
  section.done();
  if (plan.views.views % 2 != 0)
    throw InputError(fmt::format("{}: study.views is {}; views are compared in pairs, give an even number",
                                 section.where("views"), plan.views.views));
  if (plan.views.documents == 1 || plan.views.documents * plan.views.views > kMostViewsInAll)
    throw InputError(
        fmt::format("{}: study.documents is {} and study.views {}, expected at least two documents (or 0: "
                    "no views) and at most {} views in all",
                    section.where("documents"), plan.views.documents, plan.views.views, kMostViewsInAll));
  return plan;
}

std::string study_yaml(const StudyPlan& plan) {
  const ViewPlan& views = plan.views;
  return fmt::format(
      "study:\n  learn: {}\n  keep: [{}]\n  max_new: {}\n  documents: {}\n  views: {}\n  view_tokens: {}\n  "
      "noise_words: {}\n"
      "  noise_characters: {}\n  temperature: {}\n  seed: {}\n",
      plan.learn, fmt::join(plan.keep, ", "), plan.max_new, views.documents, views.views, views.tokens,
      views.noise.words, views.noise.characters, views.temperature, views.seed);
}

ReplayPlan with_study_file(ReplayPlan plan, const std::filesystem::path& file) {
  for (PolicySpec& spec : plan.layer_allocators) {
    if (!is_study_file(spec)) continue;
    spec.params.erase("file");
    if (!file.empty()) spec.params["file"] = std::filesystem::absolute(file).lexically_normal().string();
  }
  return plan;
}

bool names_study_file(const ReplayPlan& plan) { return std::ranges::any_of(plan.layer_allocators, is_study_file); }

}  // namespace depthkv
