// SPDX-License-Identifier: Apache-2.0
#include "depthkv/verify.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>

#include "depthkv/error.h"
#include "replay/agreement.h"
#include "replay/answers.h"
#include "replay/divergence.h"
#include "replay/sample_store.h"
#include "replay/separation.h"

namespace depthkv {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

// One sample, all candidates together. Branch 0 is the full cache.
class SampleCheck {
 public:
  SampleCheck(Model& model, const Trace& trace, const ResultTable& results, const VerifyPlan& plan,
              const std::vector<Candidate>& candidates)
      : model_(model), sample_(trace.sample()), plan_(plan), cut_(sample_.segments.at(results.plan.cut)) {
    std::vector<PolicyChoice> choices;
    for (const Candidate& candidate : candidates) choices.push_back(candidate.choice);
    masks_ = keep_masks(trace, results.plan, results.policies, choices);
    masks_.insert(masks_.begin(), KeepMask::everything(trace.model()));
    rows_.resize(candidates.size());
    for (std::size_t c = 0; c < rows_.size(); ++c) rows_[c].kept = kept_shares(masks_[c + 1], trace.model());
  }

  std::vector<VerifyRow> run() {
    const std::vector<Token> lead = slice(cut_, sample_.segments.prompt_end);
    const std::vector<Token> reference = reference_tokens();
    const std::int64_t room = room_behind(model_.card(), sample_.segments);
    const auto longest =
        std::max<std::int64_t>({static_cast<std::int64_t>(reference.size()), std::min(plan_.max_new, room),
                                sample_.size() - sample_.segments.prompt_end});
    const auto branches = model_.branch(std::span(sample_.tokens).first(static_cast<std::size_t>(cut_)), masks_,
                                        static_cast<std::int64_t>(lead.size()) + longest);
    compare(*branches);
    take_likelihood(*branches, lead, reference);
    take_score(*branches);
    return rows_;
  }

 private:
  std::vector<double> kept_shares(const KeepMask& mask, const ModelCard& model) const {
    std::vector<double> shares;
    for (const int layer : prunable_layers(model)) {
      const auto& heads = mask.pruned[static_cast<std::size_t>(layer)];
      double pruned = 0;
      for (const auto& positions : heads) pruned += static_cast<double>(positions.size());
      shares.push_back(1 - pruned / static_cast<double>(cut_ * static_cast<std::int64_t>(heads.size())));
    }
    return shares;
  }

  std::vector<Token> slice(std::int64_t begin, std::int64_t end) const {
    return {sample_.tokens.begin() + begin, sample_.tokens.begin() + end};
  }

  std::vector<Token> reference_tokens() const {
    if (plan_.reference == 0) return {};
    if (sample_.answer_source == "reference") return slice(sample_.segments.prompt_end, sample_.size());
    if (sample_.answers.empty()) return {};
    std::vector<Token> tokens = model_.tokenize(fmt::format("{}", fmt::join(sample_.answers, ", ")), false, false);
    const auto most = static_cast<std::size_t>(std::min(plan_.reference, room_behind(model_.card(), sample_.segments)));
    if (tokens.size() > most) tokens.resize(most);
    return tokens;
  }

  void compare(Branches& branches) {
    const std::vector<Divergence> found = measure_divergence(branches, rows_.size() + 1, sample_, cut_);
    for (std::size_t c = 0; c < rows_.size(); ++c) {
      rows_[c].scored_tokens = found[c].tokens;
      rows_[c].kl = found[c].kl;
      rows_[c].top1 = found[c].top1;
    }
  }

  // NLL of the reference, over the tokens whose prediction pruning can change.
  void take_likelihood(Branches& branches, const std::vector<Token>& lead, const std::vector<Token>& reference) {
    std::vector<Token> fed = lead;
    if (!reference.empty()) fed.insert(fed.end(), reference.begin(), reference.end() - 1);
    const auto offset = static_cast<std::int64_t>(lead.size());
    const std::int64_t first = std::max<std::int64_t>(0, offset - 1);
    const std::int64_t counted = static_cast<std::int64_t>(fed.size()) - first;
    for (VerifyRow& row : rows_) row.nll = row.nll_full = reference.empty() || counted < 1 ? kNone : 0.0;
    if (reference.empty() || counted < 1) return;
    double full = 0;
    branches.score(fed, first, [&](std::size_t branch, std::int64_t step, std::span<const float> logits) {
      const auto target = static_cast<std::size_t>(reference[static_cast<std::size_t>(step + 1 - offset)]);
      if (target >= logits.size())
        throw Error(
            fmt::format("sample {}: its answer has token {}, the model has {}", sample_.id, target, logits.size()));
      const double loss = (log_sum_exp(logits) - static_cast<double>(logits[target])) / static_cast<double>(counted);
      (branch == 0 ? full : rows_[branch - 1].nll) += loss;
    });
    for (VerifyRow& row : rows_) row.nll_full = full;
  }

  void take_score(Branches& branches) {
    for (VerifyRow& row : rows_) row.score = row.score_full = row.length_ratio = kNone;
    const std::vector<Answer> answers = answer(model_, branches, sample_, cut_, plan_.max_new, rows_.size() + 1);
    for (std::size_t c = 0; c + 1 < answers.size(); ++c) {
      rows_[c].output = answers[c + 1].text;
      rows_[c].score = answers[c + 1].score;
      rows_[c].score_full = answers[0].score;
      rows_[c].length_ratio = answers[c + 1].length_ratio;
    }
  }

  Model& model_;
  const Sample& sample_;
  const VerifyPlan& plan_;
  std::int64_t cut_;
  std::vector<KeepMask> masks_;
  std::vector<VerifyRow> rows_;
};

std::string key_of(const Model& model, const Trace& trace, const ResultTable& results, const VerifyPlan& plan,
                   const std::vector<Candidate>& candidates) {
  std::string key = fmt::format("verify generate {} reference {}\n{}", plan.max_new, plan.reference,
                                sample_key(model.card(), trace, results.plan));
  for (const Candidate& candidate : candidates) key += choice_key(results.policies, candidate.choice);
  return key;
}

nlohmann::json packed(const std::vector<VerifyRow>& rows) {
  auto all = nlohmann::json::array();
  for (const VerifyRow& row : rows)
    all.push_back({row.scored_tokens, row.kl, row.top1, row.nll, row.nll_full, row.score, row.score_full,
                   row.length_ratio, row.output, row.kept});
  return all;
}

std::vector<VerifyRow> unpacked(const nlohmann::json& all) {
  std::vector<VerifyRow> rows;
  for (const nlohmann::json& row : all) {
    std::vector<double> numbers;
    for (std::size_t i = 1; i < 8; ++i) numbers.push_back(row.at(i).get<double>());
    rows.push_back({0, 0, row.at(0).get<std::int64_t>(), numbers[0], numbers[1], numbers[2], numbers[3], numbers[4],
                    numbers[5], numbers[6], row.at(8).get<std::string>(), row.at(9).get<std::vector<double>>()});
  }
  return rows;
}

void check(const Model& model, const TraceSet& traces, const ResultTable& results) {
  if (traces.files.size() != results.samples.size())
    throw InputError(fmt::format("{}: {} samples, the replay had {}; replay again", traces.directory.string(),
                                 traces.files.size(), results.samples.size()));
  if (model.card().fingerprint != results.model.fingerprint)
    throw InputError(
        fmt::format("the traces were recorded from {} ({}), the model given is {} ({}); give the same file",
                    results.model.name, results.model.fingerprint, model.card().name, model.card().fingerprint));
}

// The order in which samples are taken: theirs, or drawn where not all of them may be needed, so that the first are of
// all tasks.
std::vector<std::size_t> turns_of(std::size_t samples, const VerifyPlan& plan) {
  std::vector<std::size_t> turns(samples);
  std::iota(turns.begin(), turns.end(), std::size_t{0});
  std::uint64_t state = plan.seed;
  if (plan.stop_when_separate > 0) shuffle(turns, state);
  return turns;
}

// Rows of one sample, from the store if they are there.
std::vector<VerifyRow> checked(Model& model, const std::filesystem::path& file, const ResultTable& results,
                               const Verification& verification, const SampleStore& store) {
  const Trace trace = Trace::open(file);
  const std::string name = file.stem().string();
  const std::string key = key_of(model, trace, results, verification.plan, verification.candidates);
  if (const auto found = store.take(name, key)) return unpacked(*found);
  std::vector<VerifyRow> rows = SampleCheck(model, trace, results, verification.plan, verification.candidates).run();
  store.put(name, key, packed(rows));
  return rows;
}

}  // namespace

Verification verify(Model& model, const TraceSet& traces, const ResultTable& results, const VerifyPlan& plan,
                    const Progress& progress, const std::filesystem::path& kept) {
  check(model, traces, results);
  Verification verification;
  verification.plan = plan;
  verification.candidates = choose_candidates(results, plan);
  const SampleStore store(kept);
  const auto total = static_cast<std::int64_t>(traces.files.size());
  std::int64_t done = 0;
  for (const std::size_t s : turns_of(traces.files.size(), plan)) {
    progress("verify", done++, total, results.samples[s].id);
    if (!results.samples[s].skipped.empty()) continue;
    std::vector<VerifyRow> rows = checked(model, traces.files[s], results, verification, store);
    for (std::size_t c = 0; c < rows.size(); ++c) {
      rows[c].candidate = c;
      rows[c].sample = s;
      verification.rows.push_back(std::move(rows[c]));
    }
    if (plan.stop_when_separate > 0 && is_separate(verification, static_cast<std::size_t>(plan.stop_when_separate)))
      break;
  }
  progress("verify", total, total, "");
  std::ranges::stable_sort(verification.rows, {}, &VerifyRow::sample);
  verification.agreement = measure_agreement(results, verification);
  return verification;
}

}  // namespace depthkv
