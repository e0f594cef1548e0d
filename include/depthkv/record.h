// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "depthkv/model.h"
#include "depthkv/progress.h"
#include "depthkv/trace.h"

namespace depthkv {

struct TracePlan {
  std::filesystem::path model;
  std::vector<std::filesystem::path> tasks;
  std::int64_t limit = 0;          // samples per task file, 0: all
  std::int64_t max_new = 64;       // most answer tokens recorded per sample (the task's own bound still holds)
  std::string attention = "none";  // all, none, or layers: "0,3,7"
  std::string queries = "rows";    // rows (last 128 before each cut and everything after the context) or all
  std::string codec = "zstd";      // zstd, deflate or none
  int threads = 0;                 // 0: one per core
};

struct TraceSummary {
  std::int64_t recorded = 0;
  std::int64_t resumed = 0;  // were there already
  std::int64_t tokens = 0;   // of the recorded ones
  double seconds = 0;
};

// Records every sample of the plan into `out`, one file each, then index.h5. Finished samples of the same model and
// plan are left as they are. Throws InputError before any work if the plan can't be carried out (unknown layer, prompt
// plus answer longer than the model's context, folder not writable, folder holding another model's traces).
TraceSummary record_traces(Model& model, const TracePlan& plan, const std::filesystem::path& out,
                           const Progress& progress);

// "all", "none" or "0,3,7" as one flag per layer.
std::vector<bool> parse_layers(const std::string& text, int layers);

}  // namespace depthkv
