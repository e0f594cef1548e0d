// SPDX-License-Identifier: Apache-2.0
#include "replay/divergence.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "depthkv/error.h"

namespace depthkv {
namespace {

// A step of the first branch: what the others' are compared with.
struct Expected {
  explicit Expected(std::span<const float> row) : logits(row.begin(), row.end()), log_sum(log_sum_exp(row)) {
    for (const float logit : row)
      probabilities.push_back(static_cast<float>(std::exp(static_cast<double>(logit) - log_sum)));
  }

  // KL(this || q) of the softmax distributions, in nats; 0 for equal logits. Rounding can't make it negative. Throws
  // Error where logits aren't numbers.
  double kl(std::span<const float> q) const {
    const double log_q = log_sum_exp(q);
    double kl = 0;
    for (std::size_t v = 0; v < logits.size(); ++v) {
      const auto p = static_cast<double>(probabilities[v]);
      const double term = p * ((static_cast<double>(logits[v]) - log_sum) - (static_cast<double>(q[v]) - log_q));
      kl += p > 0 ? term : 0.0;  // a logit of -inf has no part in it
    }
    if (std::isnan(kl) || std::isnan(log_sum)) {
      throw Error(
          "the model's logits aren't numbers, so nothing can be compared with them; its activations overflow, perhaps: "
          "try another quantisation, or the engine on another device");
    }
    return std::max(0.0, kl);
  }

  std::vector<float> logits;
  std::vector<float> probabilities;
  double log_sum;
};

std::size_t argmax(std::span<const float> logits) {
  return static_cast<std::size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

}  // namespace

double log_sum_exp(std::span<const float> logits) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - top);
  return top + std::log(sum);
}

std::vector<Divergence> measure_divergence(Branches& branches, std::size_t count, const Sample& sample,
                                           std::int64_t cut) {
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  const std::vector<Token> fed(sample.tokens.begin() + cut, sample.tokens.end() - 1);
  const std::int64_t first = std::max<std::int64_t>(0, sample.segments.prompt_end - 1 - cut);
  const std::int64_t tokens = static_cast<std::int64_t>(fed.size()) - first;
  if (tokens <= 0) return std::vector<Divergence>(count - 1, {0, kNone, kNone});
  std::vector<Divergence> found(count - 1, {tokens, 0, 0});
  std::vector<Expected> full;  // [step from `first`]
  branches.score(fed, first, [&](std::size_t branch, std::int64_t step, std::span<const float> logits) {
    if (branch == 0) {
      full.emplace_back(logits);
      return;
    }
    const Expected& expected = full[static_cast<std::size_t>(step - first)];
    found[branch - 1].kl += expected.kl(logits);
    found[branch - 1].top1 += argmax(logits) == argmax(expected.logits) ? 1.0 : 0.0;
  });
  for (Divergence& it : found) {
    it.kl /= static_cast<double>(tokens);
    it.top1 /= static_cast<double>(tokens);
  }
  return found;
}

}  // namespace depthkv
