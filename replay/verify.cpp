// SPDX-License-Identifier: Apache-2.0
#include "depthkv/verify.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "depthkv/error.h"
#include "depthkv/tasks.h"
#include "replay/agreement.h"

namespace depthkv {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr std::int64_t kMaxReference = 64;  // tokens of the reference whose likelihood is taken

// log of the sum of exp, in double.
double log_sum_exp(std::span<const float> logits) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - top);
  return top + std::log(sum);
}

// KL(p || q) of the softmax distributions of two logit vectors, in nats. Rounding can't make it negative.
double kl_divergence(std::span<const float> p, std::span<const float> q) {
  const double log_p = log_sum_exp(p);
  const double log_q = log_sum_exp(q);
  double kl = 0;
  for (std::size_t v = 0; v < p.size(); ++v) {
    const double lp = static_cast<double>(p[v]) - log_p;
    kl += std::exp(lp) * (lp - (static_cast<double>(q[v]) - log_q));
  }
  return std::max(0.0, kl);
}

std::size_t argmax(std::span<const float> logits) {
  return static_cast<std::size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

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

  // KL and top-1 over the recorded answer. The row at cut + s predicts token cut + s + 1; rows before the cut saw the
  // full cache, so under the prompt cut the answer's first token is not counted.
  void compare(Branches& branches) {
    const std::vector<Token> fed = slice(cut_, sample_.size() - 1);
    const std::int64_t first = std::max<std::int64_t>(0, sample_.segments.prompt_end - 1 - cut_);
    for (VerifyRow& row : rows_) row.scored_tokens = static_cast<std::int64_t>(fed.size()) - first;
    std::vector<std::vector<float>> full;  // logits of branch 0, [step from `first`]
    if (!rows_.empty() && rows_[0].scored_tokens > 0)
      branches.score(fed, first, [&](std::size_t branch, std::int64_t step, std::span<const float> logits) {
        if (branch == 0) {
          full.emplace_back(logits.begin(), logits.end());
          return;
        }
        const std::vector<float>& expected = full[static_cast<std::size_t>(step - first)];
        rows_[branch - 1].kl += kl_divergence(expected, logits);
        rows_[branch - 1].top1 += argmax(logits) == argmax(expected) ? 1.0 : 0.0;
      });
    for (VerifyRow& row : rows_) {
      const bool any = row.scored_tokens > 0;
      row.kl = any ? row.kl / static_cast<double>(row.scored_tokens) : kNone;
      row.top1 = any ? row.top1 / static_cast<double>(row.scored_tokens) : kNone;
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
