// SPDX-License-Identifier: Apache-2.0
// What a trace plan asks of a model, sample by sample.
#pragma once
#include <algorithm>
#include <filesystem>

#include "depthkv/record.h"
#include "depthkv/tasks.h"
#include "tracer/repetition.h"

namespace depthkv {

struct TraceJob {
  TaskSample sample;
  Prompt prompt;
  std::vector<Token> answer;  // the reference, where it is teacher-forced
  std::int64_t max_new = 0;   // most tokens generated, where it isn't
  Repetition repetition;      // of the context, where it is recorded

  std::int64_t answer_capacity() const { return answer.empty() ? max_new : static_cast<std::int64_t>(answer.size()); }
  std::int64_t capacity() const { return static_cast<std::int64_t>(prompt.tokens.size()) + answer_capacity(); }
  // Passages included: an engine may rotate by how many tokens there may be.
  std::int64_t reach() const { return std::max(capacity(), end_of(repetition.passages)); }
};

// The samples of all task files. Throws InputError as read_tasks(), and on two ids that would name the same trace.
std::vector<TaskSample> read_samples(const TracePlan& plan);

// Throws InputError as make_prompt().
TraceJob make_job(const Model& model, const TracePlan& plan, const TaskSample& sample);

// record_traces() of samples that no file holds. Their ids name different traces.
TraceSummary record_samples(Model& model, const TracePlan& plan, const std::vector<TaskSample>& samples,
                            const std::filesystem::path& out, const Progress& progress);

// Records one sample. Returns its tokens, answer included. Throws TraceBusy.
std::int64_t record_one(Model& model, const TracePlan& plan, const TraceJob& job, const std::filesystem::path& file);

}  // namespace depthkv
