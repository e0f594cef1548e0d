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

struct VerifyPlan {
  std::int64_t top = 4;                   // best of the predicted ranking, per keep
  std::vector<std::string> scorers = {};  // those that the best are looked for under; empty: all
  std::int64_t controls = 4;              // drawn from equal strata of the rest of it
  std::vector<double> keep{0.2};          // each one of the replay's
  Metric rank_by = Metric::predicted_loss;
  std::uint64_t seed = 1;       // of the control draw and the bootstrap
  std::int64_t max_new = 32;    // most tokens generated for a task score, 0: none
  std::int64_t reference = 64;  // most tokens of the reference whose likelihood is taken, 0: none
  bool bounds = false;          // whether the oracle's split of layers is verified, too, under the best ranker
  // Samples are drawn one by one until so many of the best at every keep are told from all others by paired 95 %
  // intervals, or there are no more; 0: all of them.
  std::int64_t stop_when_separate = 0;
};

inline constexpr const char* kBound = "bound";

struct Candidate {
  PolicyChoice choice;
  std::size_t policy = 0;  // index in the result table
  std::size_t keep_index = 0;
  std::string role;      // "top", "control", "uniform" or "bound"
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
  double length_ratio = 0;        // words generated, over those that the full cache generated; NaN where nothing was
  std::string output;             // what was generated
  std::vector<double> kept = {};  // kept share of every prunable layer's entries; not in verify.csv
};

// A figure over samples, and the middle 95 % of it when samples are drawn anew (bootstrap, 1,000 times). NaN where it
// doesn't exist.
struct Estimate {
  double value = 0;
  Interval interval;
};

// How far the order that a metric of replay gives the candidates agrees with the model's, which is that of their mean
// KL, on the samples of one task (or all: task empty) and at one keep (or all: keep = 0).
struct Agreement {
  Metric metric = Metric::output_error;
  std::string task;  // "all", or one of the samples'
  double keep = 0;
  std::size_t policies = 0;
  std::size_t samples = 0;  // that have both a KL and the metric
  std::size_t top = 0;      // how many candidates "the top" are: the best that the metric predicts
  Estimate kendall;         // tau-b
  Estimate spearman;
  Estimate regret;            // (best KL of the top - best KL of all) / (worst - best KL of all)
  double top_holds_best = 0;  // in what share of the draws the best of all is in the top
  double halves_kendall = 0;  // tau-b between KL on two halves of the samples, mean over draws: what noise alone
                              // leaves; NaN with one sample
};

struct Verification {
  VerifyPlan plan;
  std::vector<Candidate> candidates;
  std::vector<VerifyRow> rows;
  std::vector<Agreement> agreement;
};

// Top, control and uniform policies per keep, and where the plan says so the bound. It counts in no agreement.
std::vector<Candidate> choose_candidates(const ResultTable& results, const VerifyPlan& plan);

// Throws InputError if the model isn't the one that made the traces, or a keep wasn't replayed. In the folder `kept`,
// unless that is empty, the rows of finished samples wait for the others: an interrupted call, made again, computes the
// rest only, and returns what it would have returned. Whoever has written down the result may remove the folder.
Verification verify(Model& model, const TraceSet& traces, const ResultTable& results, const VerifyPlan& plan,
                    const Progress& progress, const std::filesystem::path& kept = {});

// Mean KL of a candidate over its samples.
double mean_kl(const Verification& verification, std::size_t candidate);

}  // namespace depthkv
