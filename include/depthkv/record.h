// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "depthkv/model.h"
#include "depthkv/progress.h"
#include "depthkv/tasks.h"
#include "depthkv/trace.h"

namespace depthkv {

// How much to record. sweep: what the built-in policies need, which is all but attention matrices. study: what hidden
// states say, too. full: all there is, every query row and attention matrix included.
enum class Preset { sweep, study, full };
inline constexpr std::array kPresets{Preset::sweep, Preset::study, Preset::full};
std::string_view to_string(Preset preset);
std::set<Channel> preset_channels(Preset preset);

// Channels by name; "attention" isn't among them, since it is chosen by layer. Throws InputError.
std::set<Channel> parse_channels(const std::vector<std::string>& names, const std::string& where);

struct TracePlan {
  std::filesystem::path model;
  std::vector<TaskSource> tasks;
  std::int64_t limit = 0;               // samples per task file, 0: all
  std::int64_t max_prompt = 0;          // most prompt tokens, 0: what the model's context leaves beside the answer
  Truncate truncate = Truncate::error;  // what to do with a longer prompt
  std::int64_t max_new = 64;            // most answer tokens recorded per sample (the task's own bound still holds)
  std::set<Channel> channels = preset_channels(Preset::sweep);
  std::string attention = "none";  // all, none, or layers: "0,3,7"
  std::string queries = "rows";    // rows (last 128 before each cut and everything after the context) or all
  // Whether attention is the engine's own softmax; else it is recomputed from queries and cached keys, and the engine
  // may use flash attention, which is faster.
  bool engine_softmax = false;
  std::string codec = "zstd";  // zstd, deflate or none
  int threads = 0;             // 0: one per core
};

// Replaces the plan's channels, attention and queries.
void apply_preset(Preset preset, TracePlan& plan);

struct TraceSummary {
  std::int64_t recorded = 0;
  std::int64_t resumed = 0;    // were there already
  std::int64_t truncated = 0;  // of both
  std::int64_t tokens = 0;     // of the recorded ones
  double seconds = 0;
};

// Records every sample of the plan into `out`, one file each, then index.h5. Finished samples of the same model and
// plan are left as they are, unless the task has changed. Throws InputError before any work if the plan can't be
// carried out (unknown layer, a prompt that is too long and may not be cut, folder not writable, folder holding another
// model's traces).
TraceSummary record_traces(Model& model, const TracePlan& plan, const std::filesystem::path& out,
                           const Progress& progress);

// What recording a plan would take if every answer were as long as it may be: `bytes` before compression, `seconds`
// foretold from short recordings.
struct TraceEstimate {
  std::int64_t samples = 0;
  std::int64_t truncated = 0;
  std::int64_t tokens = 0;
  double bytes = 0;          // in the end
  double waiting_bytes = 0;  // on disk beside them, until their sample is finished
  double seconds = 0;
  std::string slowest;  // id of the sample that takes longest
  std::int64_t slowest_tokens = 0;
  double slowest_seconds = 0;
  double tokens_per_second = 0;  // measured on the longest of the short recordings
  std::int64_t measured_tokens = 0;
};

// Times recordings of at most 512 tokens of the plan's own prompts, in a temporary folder that is removed. Throws
// InputError as record_traces() does where the plan can't be carried out.
TraceEstimate estimate_traces(Model& model, const TracePlan& plan, const Progress& progress);

// "all", "none" or "0,3,7" as one flag per layer.
std::vector<bool> parse_layers(const std::string& text, int layers);

}  // namespace depthkv
