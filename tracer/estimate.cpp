// SPDX-License-Identifier: Apache-2.0
#include "tracer/estimate.h"

#include <fmt/format.h>
#include <stdlib.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "depthkv/error.h"
#include "tracer/jobs.h"
#include "tracer/state_metrics.h"
#include "tracer/state_recorder.h"

namespace depthkv {
namespace {

constexpr std::int64_t kShort = 128;  // tokens
constexpr std::int64_t kLong = 512;
constexpr std::int64_t kSteps = 16;  // of the recording that generates

// What a sample's file will hold, uncompressed: see traces/FORMAT.md.
double trace_bytes(const ModelCard& card, const TracePlan& plan, const Segments& segments, std::int64_t tokens) {
  const std::vector<bool> attention = parse_layers(plan.attention, static_cast<int>(card.layers.size()));
  const auto rows = static_cast<double>(recorded_query_rows(segments, tokens, plan.queries == "all").size());
  const auto t = static_cast<double>(tokens);
  const auto width = static_cast<double>(card.embedding);
  double bytes = 0;
  for (std::size_t l = 0; l < card.layers.size(); ++l) {
    const LayerShape& layer = card.layers[l];
    const double d = layer.head_dim;
    const double heads = layer.query_heads;
    const auto add = [&](Channel channel, double size) { bytes += plan.channels.contains(channel) ? size : 0.0; };
    add(Channel::keys, 2.0 * d * layer.kv_heads * t);
    add(Channel::values, 2.0 * d * layer.kv_heads * t);
    add(Channel::queries, 2.0 * d * heads * rows);
    add(Channel::column_sums, 8.0 * heads * static_cast<double>(segments.prompt_end));
    add(Channel::query_mean, 8.0 * heads * d);
    add(Channel::query_second_moment, 8.0 * heads * d * d);
    add(Channel::value_output_norms, 8.0 * heads * t);
    add(Channel::hidden_mean, 4.0 * kStages.size() * width);
    add(Channel::hidden_unit_mean, 4.0 * kStages.size() * width);
    add(Channel::hidden_scalars, 4.0 * kStages.size() * kHiddenScalars.size());
    add(Channel::attention_cosines, 8.0 * static_cast<double>(segments.prompt_end));
    add(Channel::repeat_max, 4.0 * kRepeats.size() * heads * static_cast<double>(segments.prompt_end));
    if (attention[l]) bytes += heads * t * t;
  }
  return bytes;
}

// Of the set, once.
double weight_bytes(const ModelCard& card, const TracePlan& plan) {
  double bytes = 0;
  if (!plan.channels.contains(Channel::output_projection)) return bytes;
  for (const LayerShape& layer : card.layers)
    bytes += 2.0 * layer.query_heads * layer.head_dim * static_cast<double>(card.embedding);
  return bytes;
}

// Gone with everything in it when the timings are taken, or failed.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::error_code error;
    std::string name = (std::filesystem::temp_directory_path(error) / "depthkv-estimate-XXXXXX").string();
    if (error || mkdtemp(name.data()) == nullptr)
      throw InputError(
          fmt::format("{}: can't be made for the short recordings that time the plan; set TMPDIR to a "
                      "folder that can be written to",
                      name));
    path_ = name;
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// The first `count` tokens of a job's prompt; the bounds of its segments are where they were, as far as they are left.
TraceJob first_tokens(const TraceJob& whole, std::int64_t count) {
  TraceJob job = whole;
  job.prompt.tokens.resize(static_cast<std::size_t>(count));
  job.prompt.text_offsets.resize(static_cast<std::size_t>(count));
  job.prompt.evidence.clear();
  Segments& segments = job.prompt.segments;
  segments.context = {std::min(segments.context.begin, count), std::min(segments.context.end, count)};
  segments.prompt_end = count;
  return job;
}

class Stopwatch {
 public:
  Stopwatch(Model& model, const TracePlan& plan, const TraceJob& whole) : model_(model), plan_(plan), whole_(whole) {}

  // Records the first `tokens` of the prompt, without an answer but for one that is fed, or with what is generated.
  Timing time(std::int64_t tokens, std::int64_t steps) {
    TraceJob job = first_tokens(whole_, tokens);
    if (plan_.channels.contains(Channel::repeat_max))
      job.repetition = make_repetition(model_, job.prompt, whole_.sample.where);
    job.max_new = steps;
    job.answer.clear();
    if (steps == 0) job.answer = {job.prompt.tokens.front()};  // fed, so that nothing is generated
    const auto started = std::chrono::steady_clock::now();
    const std::int64_t recorded = record_one(model_, plan_, job, folder_.path() / "sample.h5");
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
    return {recorded, steps == 0 ? 0 : recorded - tokens, seconds};
  }

 private:
  Model& model_;
  const TracePlan& plan_;
  const TraceJob& whole_;
  TemporaryFolder folder_;
};

// What a job weighs, once its prompt is forgotten.
struct JobSize {
  std::string id;
  std::int64_t tokens = 0;
  std::int64_t steps = 0;  // of its generation
};

// Adds up the sizes of all jobs. Only the job with the longest prompt is kept whole.
std::vector<JobSize> add_sizes(const Model& model, const TracePlan& plan, TraceEstimate& estimate, TraceJob& longest) {
  std::vector<JobSize> sizes;
  estimate.bytes = weight_bytes(model.card(), plan);
  for (const TaskSample& sample : read_samples(plan)) {
    TraceJob job = make_job(model, plan, sample);
    sizes.push_back({sample.id, job.capacity(), job.answer.empty() ? job.max_new : 0});
    ++estimate.samples;
    estimate.truncated += job.prompt.truncated > 0 ? 1 : 0;
    estimate.tokens += job.capacity();
    const auto waiting =
        static_cast<double>(waiting_bytes(plan.channels, model.card(), job.prompt.segments.prompt_end));
    estimate.waiting_bytes = std::max(estimate.waiting_bytes, waiting);
    estimate.bytes += trace_bytes(model.card(), plan, job.prompt.segments, job.capacity());
    if (job.prompt.tokens.size() > longest.prompt.tokens.size()) longest = std::move(job);
  }
  return sizes;
}

// Seconds of a sample's spectra, divided by the cube of what each is of: short recordings hardly show them.
double spectra_cost(const ModelCard& model, const TracePlan& plan) {
  if (!plan.channels.contains(Channel::hidden_scalars)) return 0;
  const std::int64_t size = std::min(kLong, model.embedding);
  const ReadStates waves = [&](std::int64_t first, std::span<float> out) {
    for (std::size_t i = 0; i < out.size(); ++i)
      out[i] = std::sin(static_cast<float>(first * model.embedding) + 0.7F * static_cast<float>(i * i % 1009));
  };
  const auto started = std::chrono::steady_clock::now();
  summarise_states(waves, size, model.embedding, true);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  const auto spectra = static_cast<double>(model.layers.size() * kStages.size());
  return seconds * spectra / summary_threads(model, size, plan.threads) / std::pow(static_cast<double>(size), 3);
}

RecordingCost measure(Model& model, const TracePlan& plan, const TraceJob& longest, std::int64_t steps,
                      const Progress& progress, TraceEstimate& estimate) {
  Stopwatch watch(model, plan, longest);
  constexpr std::int64_t kTimings = 4;
  std::int64_t done = 0;
  const auto timed = [&](std::int64_t tokens_of, std::int64_t steps_of) {
    progress("measure", done++, kTimings, "");
    return watch.time(tokens_of, steps_of);
  };
  const std::int64_t tokens = std::min(static_cast<std::int64_t>(longest.prompt.tokens.size()), kLong);
  const std::int64_t fewer = std::max<std::int64_t>(1, tokens * kShort / kLong);
  timed(fewer, 0);  // pages the weights in
  const Timing shorter = timed(fewer, 0);
  const Timing longer = timed(tokens, 0);
  const Timing generating = steps == 0 ? Timing{} : timed(fewer, std::min(steps, kSteps));
  estimate.measured_tokens = longer.tokens;
  estimate.tokens_per_second = static_cast<double>(longer.tokens) / longer.seconds;
  RecordingCost cost = fit_cost(shorter, longer, generating);
  cost.per_cube = spectra_cost(model.card(), plan);
  cost.width = model.card().embedding;
  progress("measure", kTimings, kTimings, "");
  return cost;
}

}  // namespace

double RecordingCost::seconds(std::int64_t tokens, std::int64_t generated) const {
  const auto n = static_cast<double>(tokens);
  return per_token * n + per_pair * n * n + per_step * static_cast<double>(generated) +
         per_cube * std::pow(static_cast<double>(std::min(tokens, width)), 3);
}

RecordingCost fit_cost(const Timing& shorter, const Timing& longer, const Timing& generating) {
  const auto n = static_cast<double>(longer.tokens);
  const auto m = static_cast<double>(shorter.tokens);
  RecordingCost cost{.per_token = longer.seconds / n};
  if (n > m) {
    // Between no pairs' cost and all of the longer one's: a token costs something, too.
    const double slope = (longer.seconds / n - shorter.seconds / m) / (n - m);
    cost.per_pair = std::clamp(slope, 0.0, 0.9 * longer.seconds / (n * n));
    cost.per_token = longer.seconds / n - cost.per_pair * n;
  }
  if (generating.generated > 0) {
    const double rest = generating.seconds - cost.seconds(generating.tokens, 0);
    cost.per_step = std::max(0.0, rest / static_cast<double>(generating.generated));
  }
  return cost;
}

TraceEstimate estimate_traces(Model& model, const TracePlan& plan, const Progress& progress) {
  TraceEstimate estimate;
  TraceJob longest;
  const std::vector<JobSize> sizes = add_sizes(model, plan, estimate, longest);
  if (sizes.empty()) return estimate;
  const std::int64_t steps = std::ranges::max(sizes, {}, &JobSize::steps).steps;
  const RecordingCost cost = measure(model, plan, longest, steps, progress, estimate);
  for (const JobSize& job : sizes) {
    const double seconds = cost.seconds(job.tokens, job.steps);
    estimate.seconds += seconds;
    if (seconds <= estimate.slowest_seconds) continue;
    estimate.slowest = job.id;
    estimate.slowest_tokens = job.tokens;
    estimate.slowest_seconds = seconds;
  }
  return estimate;
}

}  // namespace depthkv
