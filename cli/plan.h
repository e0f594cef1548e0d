// SPDX-License-Identifier: Apache-2.0
// A plan: what to record, replay and verify. Written as YAML, as flags, or as YAML with flags on top;
// configs/reference.yaml documents every key.
#pragma once
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "depthkv/record.h"
#include "depthkv/registry.h"
#include "depthkv/replay.h"
#include "depthkv/study.h"
#include "depthkv/verify.h"

namespace depthkv {

struct Plan {
  std::filesystem::path model;       // GGUF file; needed to trace and to verify
  int threads = 0;                   // 0: one per core
  int batch = kEngineBatch;          // most tokens per engine call: a prompt is prefilled in chunks of so many
  std::string cache = "auto";        // where curves are kept: auto (in the trace set's folder), none, or a folder
  std::filesystem::path traces;      // a recorded set; empty: `trace` records one into the run folder
  std::optional<TracePlan> trace;    // absent: nothing is recorded
  ReplayPlan replay;                 // axes that the plan leaves out: everything that is built in
  std::optional<VerifyPlan> verify;  // absent: nothing is verified
  std::optional<StudyPlan> study;    // absent: layers aren't measured, all samples judge
};

// Values given on the command line, by the plan's key: {"replay.keep", {"0.2", "0.4"}}. They win over the file's.
using Overrides = std::map<std::string, std::vector<std::string>>;

using Variables = std::map<std::string, std::string>;  // by name

// What a plan is read beside.
struct PlanSetting {
  Variables variables = {};          // of ${NAME} in the file's paths, before those of the environment
  std::filesystem::path model = {};  // of a plan that names none
  bool expect_files = false;         // whatever the plan reads has to be there
};

// Reads a plan; no file: only what the overrides say. Relative paths in the file
// are relative to the file, on the command line to the working directory. Throws
// InputError with file and line (or flag) on anything that is not exactly right.
Plan load_plan(const std::filesystem::path& file, const Overrides& overrides, const Registry& registry,
               const PlanSetting& setting = {});

// The plan with every default spelled out, policy parameters included; load_plan() reads it back.
std::string to_yaml(const Plan& plan, const Registry& registry);

// A short hash of what decides results: the resolved replay section and the files that it names, threads left out.
std::string plan_hash(const ReplayPlan& plan, const Registry& registry);

// How a key of the plan is spelled on the command line.
struct Flag {
  const char* flag;
  const char* key;
  const char* help;
  bool list = false;  // may be repeated; values may also be separated by commas where `split` says so
  bool split = false;
};
const std::vector<Flag>& plan_flags();

}  // namespace depthkv
