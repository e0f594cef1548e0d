// SPDX-License-Identifier: Apache-2.0
#include "cli/forecast.h"

#include <algorithm>

#include "tracer/jobs.h"

namespace depthkv {

namespace {

// As a set that is recorded from them will have them.
std::vector<TaskSample> in_order_of_files(std::vector<TaskSample> samples) {
  std::ranges::sort(samples, {}, [](const TaskSample& sample) { return trace_file_name(sample.id); });
  return samples;
}

}  // namespace

Forecast forecast(const Model& model, const TracePlan& plan) {
  Forecast found;
  found.model = model.card();
  std::int64_t longest = 0;
  for (const TaskSample& task : in_order_of_files(read_samples(plan))) {
    const TraceJob job = make_job(model, plan, task);
    const auto fed = static_cast<std::int64_t>(job.answer.size());
    found.samples.push_back({job.prompt.segments, job.answer_capacity(),
                             fed > 0 || task.answers.empty() ? fed : VerifiedSample::kText, is_text_metric(task.metric),
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
  const std::int64_t bounds =
      plan.bounds ? std::ranges::count(policies.layer_allocators, "oracle", &LayerAllocator::name) : 0;
  return (std::min(plan.top + plan.controls + 1, eligible) + bounds) * keeps + 1;  // and the full cache
}

ModelWork take_study(Forecast& foreseen, const StudyPlan& study, Cut cut) {
  std::vector<std::string> tasks;
  for (const VerifiedSample& sample : foreseen.samples) tasks.push_back(sample.task);
  const SplitSamples split = split_samples(tasks, study.learn);
  std::vector<VerifiedSample> learnt, judged;
  for (const std::size_t s : split.learn) learnt.push_back(foreseen.samples[s]);
  for (const std::size_t s : split.judge) judged.push_back(foreseen.samples[s]);
  foreseen.samples = std::move(judged);
  for (VerifiedSample& sample : learnt) sample.reference = 0;  // no likelihoods are taken
  const auto layers = static_cast<std::int64_t>(prunable_layers(foreseen.model).size());
  const auto keeps = static_cast<std::int64_t>(study.keep.size());
  VerifyPlan generating;
  generating.max_new = study.max_new;
  return verification_work(foreseen.model, learnt, cut, layers * (keeps + 1) + 1, generating);
}

}  // namespace depthkv
