// SPDX-License-Identifier: Apache-2.0
#include "depthkv/verify.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "depthkv/error.h"
#include "depthkv/tasks.h"
#include "replay/agreement.h"
#include "replay/divergence.h"

namespace depthkv {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr std::int64_t kMaxReference = 64;  // tokens of the reference whose likelihood is taken

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
  }

  std::vector<VerifyRow> run() {
    const std::vector<Token> lead = slice(cut_, sample_.segments.prompt_end);
    const std::vector<Token> reference = reference_tokens();
    const auto longest = std::max<std::int64_t>(
        {static_cast<std::int64_t>(reference.size()), plan_.max_new, sample_.size() - sample_.segments.prompt_end});
    const auto branches = model_.branch(std::span(sample_.tokens).first(static_cast<std::size_t>(cut_)), masks_,
                                        static_cast<std::int64_t>(lead.size()) + longest);
    compare(*branches);
    take_likelihood(*branches, lead, reference);
    take_score(*branches, lead);
    return rows_;
  }

 private:
  std::vector<Token> slice(std::int64_t begin, std::int64_t end) const {
    return {sample_.tokens.begin() + begin, sample_.tokens.begin() + end};
  }

  std::vector<Token> reference_tokens() const {
    if (sample_.answer_source == "reference") return slice(sample_.segments.prompt_end, sample_.size());
    if (sample_.answers.empty()) return {};
    std::vector<Token> tokens = model_.tokenize(fmt::format("{}", fmt::join(sample_.answers, ", ")), false, false);
    if (static_cast<std::int64_t>(tokens.size()) > kMaxReference) tokens.resize(kMaxReference);
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
      const double loss = (log_sum_exp(logits) - static_cast<double>(logits[target])) / static_cast<double>(counted);
      (branch == 0 ? full : rows_[branch - 1].nll) += loss;
    });
    for (VerifyRow& row : rows_) row.nll_full = full;
  }

  void take_score(Branches& branches, const std::vector<Token>& lead) {
    for (VerifyRow& row : rows_) row.score = row.score_full = kNone;
    if (plan_.max_new == 0 || !is_text_metric(sample_.metric)) return;
    const std::vector<std::vector<Token>> generated = branches.generate(lead, plan_.max_new);
    const auto score = [&](std::size_t branch) {
      return score_answer(sample_.metric, model_.detokenize(generated[branch]), sample_.answers);
    };
    const double full = score(0);
    for (std::size_t c = 0; c < rows_.size(); ++c) {
      rows_[c].output = model_.detokenize(generated[c + 1]);
      rows_[c].score = score(c + 1);
      rows_[c].score_full = full;
    }
  }

  Model& model_;
  const Sample& sample_;
  const VerifyPlan& plan_;
  std::int64_t cut_;
  std::vector<KeepMask> masks_;
  std::vector<VerifyRow> rows_;
};

}  // namespace

Verification verify(Model& model, const TraceSet& traces, const ResultTable& results, const VerifyPlan& plan,
                    const Progress& progress) {
  if (model.card().fingerprint != results.model.fingerprint) {
    throw InputError(
        fmt::format("the traces were recorded from {} ({}), the model given is {} ({}); give the same file",
                    results.model.name, results.model.fingerprint, model.card().name, model.card().fingerprint));
  }
  Verification verification;
  verification.plan = plan;
  verification.candidates = choose_candidates(results, plan);
  const auto total = static_cast<std::int64_t>(traces.files.size());
  for (std::size_t s = 0; s < traces.files.size(); ++s) {
    progress("verify", static_cast<std::int64_t>(s), total, results.samples[s].id);
    if (!results.samples[s].skipped.empty()) continue;
    const Trace trace = Trace::open(traces.files[s]);
    std::vector<VerifyRow> rows = SampleCheck(model, trace, results, plan, verification.candidates).run();
    for (std::size_t c = 0; c < rows.size(); ++c) {
      rows[c].candidate = c;
      rows[c].sample = s;
      verification.rows.push_back(std::move(rows[c]));
    }
  }
  progress("verify", total, total, "");
  verification.agreement = measure_agreement(results, verification);
  return verification;
}

}  // namespace depthkv
