// SPDX-License-Identifier: Apache-2.0
// How much each layer matters: what pruning it alone costs end to end, and what replay sees of it.
#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "depthkv/stats.h"
#include "depthkv/trace.h"

namespace depthkv {

inline constexpr double kUnmeasured = std::numeric_limits<double>::quiet_NaN();

// One layer pruned alone to its even share, all others full; means over samples and budgets.
struct LayerImportance {
  int layer = 0;         // in the model
  double kl = 0;         // to the full cache, nats per answer token
  Interval kl_interval;  // 95 %, bootstrap over samples
  // The same when the layer loses a single entry, its worst: what any change at all costs in an engine that rounds its
  // activations.
  double noise = 0;
  double output_error = 0;  // the layer's own, on judged rows
  // max(0, kl - noise) / output_error, 0 where nothing was lost: nats that a unit of output error costs.
  double sensitivity = 0;
  // By how much the task score falls, and the answer's words over those of the full cache's; NaN where nothing was
  // generated. The paper's measures of a layer (arXiv:2604.24647, figures 2 and 3).
  double score_drop = kUnmeasured;
  Interval score_drop_interval = {kUnmeasured, kUnmeasured};
  double length_ratio = kUnmeasured;
  Interval length_ratio_interval = {kUnmeasured, kUnmeasured};
  // Metrics of hidden states by name, where they were measured, per Stage.
  std::map<std::string, std::array<double, kStages.size()>> representations;
  // Output error on judged rows at every one of Importance::shares, mean over samples: what the layer loses as a
  // function of the share that it keeps.
  std::vector<double> curve;
};

struct Importance {
  std::string model;
  std::string fingerprint;
  std::string cut;
  std::string policy;  // scorer, structure, protection and head allocator with their parameters, for people to read
  std::vector<double> keep;
  std::int64_t samples = 0;
  std::vector<double> shares;           // rising, from 0 to 1
  std::vector<LayerImportance> layers;  // the prunable ones

  std::vector<double> sensitivities() const;
};

// What pruning one layer of one sample did.
struct AblationRow {
  std::string sample;
  std::string task;
  double keep = 0;  // 1: all but a single entry, which shows the engine's noise
  int layer = 0;
  double kl = 0;
  double top1 = 0;
  double output_error = 0;
  double score = kUnmeasured;  // of the greedy answer, by the task's metric; none where none was generated
  double score_full = kUnmeasured;
  double length_ratio = kUnmeasured;  // words of the answer over those of the full cache's
};

struct Ablation {
  Importance importance;
  std::vector<AblationRow> rows;  // sample by sample, then budget, then layer
};

// importance.json. Reading throws InputError naming file and what is wrong: not such a file, values that are not
// finite and >= 0, curves of another length than shares.
void write_importance(const Importance& importance, const std::filesystem::path& file);
Importance read_importance(const std::filesystem::path& file);
bool is_importance_file(const std::filesystem::path& file);  // by its name: *.json
void write_ablation_csv(const std::vector<AblationRow>& rows, const std::filesystem::path& file);

}  // namespace depthkv
