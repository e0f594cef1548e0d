// SPDX-License-Identifier: Apache-2.0
#include "cli/forecast.h"

#include <algorithm>
#include <map>

#include "tracer/jobs.h"

namespace depthkv {

Forecast forecast(const Model& model, const TracePlan& plan) {
  Forecast found;
  found.model = model.card();
  std::int64_t longest = 0;
  for (const TaskSample& task : read_samples(plan)) {
    const TraceJob job = make_job(model, plan, task);
    const auto fed = static_cast<std::int64_t>(job.answer.size());
    found.samples.push_back({job.prompt.segments, job.answer_capacity(),
                             fed > 0 || task.answers.empty() ? fed : kMaxReference, is_text_metric(task.metric),
                             task.task});
    longest = std::max(longest, job.capacity());
  }
  found.recording_bytes = branch_room(found.model, longest, 0, 0, machine_memory()).bytes;
  return found;
}

Forecast forecast(const TraceSet& traces) {
  Forecast found;
  for (const std::filesystem::path& file : traces.files) {
    const Trace trace = Trace::open(file);
    found.model = trace.model();
    found.samples.push_back(verified_sample(trace.sample()));
  }
  return found;
}

std::int64_t most_branches(const Policies& policies, const VerifyPlan& plan) {
  ResultTable table;
  table.policies = policies;
  std::int64_t eligible = 0;
  for (std::size_t p = 0; p < policies.size(); ++p) eligible += table.is_bound(table.policy(p)) ? 0 : 1;
  const auto keeps = static_cast<std::int64_t>(plan.keep.size());
  return (std::min(plan.top + plan.controls + 1, eligible) + (plan.bounds ? 1 : 0)) * keeps + 1;  // and the full cache
}

ModelWork take_study(Forecast& foreseen, const StudyPlan& study, Cut cut) {
  std::map<std::string, std::int64_t> seen;
  std::vector<VerifiedSample> learnt, judged;
  for (const VerifiedSample& sample : foreseen.samples) {
    const bool learns = study.learn == 0 || seen[sample.task]++ < study.learn;
    if (learns) learnt.push_back(sample);
    if (!learns || study.learn == 0) judged.push_back(sample);
  }
  foreseen.samples = std::move(judged);
  for (VerifiedSample& sample : learnt) sample.reference = 0;  // no likelihoods are taken
  const auto layers = static_cast<std::int64_t>(prunable_layers(foreseen.model).size());
  const auto keeps = static_cast<std::int64_t>(study.keep.size());
  VerifyPlan generating;
  generating.max_new = study.max_new;
  return verification_work(foreseen.model, learnt, cut, layers * (keeps + 1) + 1, generating);
}

}  // namespace depthkv
