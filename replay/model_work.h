// SPDX-License-Identifier: Apache-2.0
// What verify and importance would have the model do.
#pragma once
#include <cstdint>
#include <span>
#include <string>

#include "depthkv/verify.h"

namespace depthkv {

struct ModelWork {
  std::int64_t samples = 0;
  std::int64_t branches = 0;       // per sample, the full cache among them
  std::int64_t together = 0;       // of these decode greedily at once, on every sample
  std::int64_t prompt_tokens = 0;  // prefilled, of all samples
  std::int64_t branch_tokens = 0;  // that branches add to them, at most
  std::int64_t cache_bytes = 0;    // of the sample that takes most
};

// What verify has to know of a sample; upper bounds where it isn't recorded yet.
struct VerifiedSample {
  Segments segments;
  std::int64_t answer = 0;  // tokens
  // Tokens of the reference: a text may have any number, and no more than the plan says are taken of it.
  static constexpr std::int64_t kText = -1;
  std::int64_t reference = 0;
  bool generates = false;  // its metric scores a text
  std::string task = {};
};
VerifiedSample verified_sample(const Sample& sample);
ModelWork verification_work(const ModelCard& model, std::span<const VerifiedSample> samples, Cut cut,
                            std::int64_t branches, const VerifyPlan& plan);

ModelWork verification_work(const TraceSet& traces, const ResultTable& results, const VerifyPlan& plan);
ModelWork importance_work(const TraceSet& traces, const ReplayPlan& plan, std::int64_t max_new);

}  // namespace depthkv
