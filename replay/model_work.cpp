// SPDX-License-Identifier: Apache-2.0
#include "replay/model_work.h"

#include <algorithm>

#include "depthkv/tasks.h"
#include "replay/answers.h"

namespace depthkv {
namespace {

// Adds what one sample takes: `branches` of a prefix, each of which is fed `fed` tokens in all and `capacity` at once.
void add(ModelWork& work, const ModelCard& model, std::int64_t prefix, std::int64_t branches, std::int64_t fed,
         std::int64_t capacity) {
  const BranchRoom room = branch_room(model, prefix, static_cast<std::size_t>(branches), capacity, machine_memory());
  ++work.samples;
  work.branches = std::max(work.branches, branches);
  work.together = work.samples == 1 ? room.together : std::min(work.together, room.together);
  work.prompt_tokens += prefix;
  work.branch_tokens += branches * fed;
  work.cache_bytes = std::max(work.cache_bytes, room.bytes);
}

}  // namespace

VerifiedSample verified_sample(const Sample& sample) {
  const std::int64_t answer = sample.size() - sample.segments.prompt_end;
  const std::int64_t reference = sample.answers.empty() ? 0 : VerifiedSample::kText;
  return {sample.segments, answer, sample.answer_source == "reference" ? answer : reference,
          is_text_metric(sample.metric), sample.task};
}

ModelWork verification_work(const ModelCard& model, std::span<const VerifiedSample> samples, Cut cut,
                            std::int64_t branches, const VerifyPlan& plan) {
  ModelWork work;
  for (const VerifiedSample& sample : samples) {
    const std::int64_t lead = sample.segments.prompt_end - sample.segments.at(cut);
    const std::int64_t room = room_behind(model, sample.segments);
    const bool text = sample.reference == VerifiedSample::kText;
    const std::int64_t reference = plan.reference == 0 ? 0 : text ? std::min(plan.reference, room) : sample.reference;
    const std::int64_t generated = std::min(plan.max_new, room);
    std::int64_t fed = 0;
    for (const std::int64_t tokens : {sample.answer, reference, sample.generates ? generated : 0})
      if (tokens > 0) fed += lead + tokens - 1;  // the last one is never fed
    add(work, model, sample.segments.at(cut), branches, fed, lead + std::max({sample.answer, reference, generated}));
  }
  return work;
}

ModelWork verification_work(const TraceSet& traces, const ResultTable& results, const VerifyPlan& plan) {
  ModelCard model;
  std::vector<VerifiedSample> samples;
  for (std::size_t s = 0; s < std::min(traces.files.size(), results.samples.size()); ++s) {
    if (!results.samples[s].skipped.empty()) continue;
    const Trace trace = Trace::open(traces.files[s]);
    model = trace.model();
    samples.push_back(verified_sample(trace.sample()));
  }
  const auto branches = static_cast<std::int64_t>(choose_candidates(results, plan).size()) + 1;
  return verification_work(model, samples, results.plan.cut, branches, plan);
}

ModelWork importance_work(const TraceSet& traces, const ReplayPlan& plan, std::int64_t max_new) {
  ModelWork work;
  for (const std::filesystem::path& file : traces.files) {
    const Trace trace = Trace::open(file);
    const Sample& sample = trace.sample();
    const std::int64_t lead = sample.segments.prompt_end - sample.segments.at(plan.cut);
    const std::int64_t scored = sample.size() - sample.segments.at(plan.cut) - 1;
    if (scored <= 0) continue;
    const std::int64_t most = std::min(max_new, room_behind(trace.model(), sample.segments));
    const std::int64_t generated = most > 0 && is_text_metric(sample.metric) ? lead + most - 1 : 0;
    const auto layers = static_cast<std::int64_t>(prunable_layers(trace.model()).size());
    const std::int64_t branches = layers * (static_cast<std::int64_t>(plan.keep.size()) + 1) + 1;
    add(work, trace.model(), sample.segments.at(plan.cut), branches, scored + generated,
        std::max(scored, generated) + 1);
  }
  return work;
}

}  // namespace depthkv
