// SPDX-License-Identifier: Apache-2.0
// What a plan will ask of the model, before it is recorded or replayed: upper bounds.
#pragma once
#include <vector>

#include "cli/plan.h"
#include "replay/model_work.h"

namespace depthkv {

struct Forecast {
  ModelCard model;
  std::vector<VerifiedSample> samples;
  std::int64_t recording_bytes = 0;  // keys and values of the longest recording, in half precision
};

// Of samples to be recorded, with answers as long as they may be. Throws InputError as make_prompt().
Forecast forecast(const Model& model, const TracePlan& plan);
// Of samples that are recorded.
Forecast forecast(const TraceSet& traces);

// Branches per sample, the full cache among them: which policies they are is known once replay has ranked them all.
std::int64_t most_branches(const Policies& policies, const VerifyPlan& plan);

// What measuring layers on the samples that a study learns from takes; the others are what remains of the forecast.
ModelWork take_study(Forecast& foreseen, const StudyPlan& study, Cut cut);

}  // namespace depthkv
