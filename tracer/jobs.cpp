// SPDX-License-Identifier: Apache-2.0
#include "tracer/jobs.h"

#include <fmt/format.h>

#include <algorithm>

#include "depthkv/error.h"

namespace depthkv {

std::vector<TaskSample> read_samples(const TracePlan& plan) {
  std::vector<TaskSample> all;
  std::map<std::string, std::string> files;
  for (const TaskSource& source : plan.tasks) {
    std::vector<TaskSample> samples = read_tasks(source);
    if (plan.limit > 0 && plan.limit < static_cast<std::int64_t>(samples.size()))
      samples.resize(static_cast<std::size_t>(plan.limit));
    for (TaskSample& sample : samples) {
      const auto [taken, is_new] = files.emplace(trace_file_name(sample.id), sample.id);
      if (!is_new)
        throw InputError(fmt::format("{}: the ids \"{}\" and \"{}\" would share the file {}; rename one", sample.where,
                                     taken->second, sample.id, taken->first));
      all.push_back(std::move(sample));
    }
  }
  return all;
}

TraceJob make_job(const Model& model, const TracePlan& plan, const TaskSample& sample) {
  TraceJob job;
  job.sample = sample;
  job.max_new = sample.max_new_tokens == 0 ? plan.max_new : std::min(plan.max_new, sample.max_new_tokens);
  if (sample.max_new_tokens == 0) {
    job.answer = model.tokenize(sample.answers[0], false, false);
    if (static_cast<std::int64_t>(job.answer.size()) > plan.max_new)
      job.answer.resize(static_cast<std::size_t>(plan.max_new));
  }
  const std::int64_t left = model.card().context_length - job.answer_capacity();
  if (left < 1) {
    throw InputError(
        fmt::format("{}: sample {} may have {} tokens of answer, the model's context holds {}; lower max_new",
                    sample.where, sample.id, job.answer_capacity(), model.card().context_length));
  }
  const bool repeats = plan.channels.contains(Channel::repeat_max);
  std::int64_t most = plan.max_prompt > 0 ? std::min(plan.max_prompt, left) : left;
  if (repeats && plan.truncate != Truncate::error)
    most = std::max<std::int64_t>(1, std::min(most, model.card().context_length - kRepeatRoom));
  job.prompt = make_prompt(model, sample, {plan.truncate, most});
  if (repeats)
    job.repetition = make_repetition(model, job.prompt, fmt::format("{}: sample {}", sample.where, sample.id));
  return job;
}

}  // namespace depthkv
