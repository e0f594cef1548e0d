// SPDX-License-Identifier: Apache-2.0
// Verify: the policies that replay found best, and a control sample of the others, end to end on the model.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "depthkv/model.h"
#include "depthkv/replay.h"
#include "depthkv/stats.h"

namespace depthkv {

inline constexpr std::int64_t kMaxReference = 64;  // tokens of a reference whose likelihood is taken, at most

struct VerifyPlan {
  std::int64_t top = 4;           // best of the predicted ranking, per keep
  std::int64_t controls = 4;      // drawn from equal strata of the rest of it
  std::vector<double> keep{0.2};  // each one of the replay's
  Metric rank_by = Metric::output_error;
  std::uint64_t seed = 1;     // of the control draw and the bootstrap
  std::int64_t max_new = 32;  // most tokens generated for a task score, 0: none
};

struct Candidate {
  PolicyChoice choice;
  std::size_t policy = 0;  // index in the result table
  std::size_t keep_index = 0;
  std::string role;      // "top", "control" or "uniform"
  double predicted = 0;  // mean of rank_by over the samples, as a loss: 1 - value where higher is better
};

// What one candidate did on one sample.
struct VerifyRow {
  std::size_t candidate = 0;
  std::size_t sample = 0;  // in the result table
  std::int64_t scored_tokens = 0;
  double kl = 0;        // mean KL(full || pruned) of the next-token distribution over answer tokens, nats
  double top1 = 0;      // share of them where the most likely token is the full cache's
  double nll = 0;       // mean negative log likelihood of the reference, NaN if there is none
  double nll_full = 0;  // the same with the full cache
  double score = 0;     // the task's own, NaN where it has none or nothing was generated
  double score_full = 0;
  std::string output;  // what was generated
};

// How far replay's order agrees with the model's, over the candidates of one keep (or of all: keep = 0).
struct Agreement {
  double keep = 0;
  std::size_t policies = 0;
  double kendall = 0;
  Interval kendall_interval;  // 95 %, bootstrap over samples
  double spearman = 0;
  double regret = 0;  // (best KL of replay's top - best KL of all) / (worst - best KL of all)
};

struct Verification {
  VerifyPlan plan;
  std::vector<Candidate> candidates;
  std::vector<VerifyRow> rows;
  std::vector<Agreement> agreement;
};

// Top, control and uniform policies per keep. Bounds are never candidates.
std::vector<Candidate> choose_candidates(const ResultTable& results, const VerifyPlan& plan);

// Throws InputError if the model isn't the one that made the traces, or a keep wasn't replayed. In the folder `kept`,
// unless that is empty, the rows of finished samples wait for the others: an interrupted call, made again, computes the
// rest only, and returns what it would have returned. Whoever has written down the result may remove the folder.
Verification verify(Model& model, const TraceSet& traces, const ResultTable& results, const VerifyPlan& plan,
                    const Progress& progress, const std::filesystem::path& kept = {});

// Mean KL of a candidate over its samples.
double mean_kl(const Verification& verification, std::size_t candidate);

}  // namespace depthkv
