// SPDX-License-Identifier: Apache-2.0
#include "depthkv/record.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <deque>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <thread>

#include "depthkv/error.h"
#include "depthkv/tasks.h"
#include "tracer/recorder.h"
#include "traces/partial.h"

namespace depthkv {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kPlanFile = "plan.json";
constexpr std::chrono::milliseconds kBusyPause{200};

struct Job {
  TaskSample sample;
  Prompt prompt;
  std::vector<Token> answer;  // the reference, where it is teacher-forced
  std::int64_t max_new = 0;

  std::int64_t capacity() const {
    return static_cast<std::int64_t>(prompt.tokens.size()) +
           (answer.empty() ? max_new : static_cast<std::int64_t>(answer.size()));
  }
};

Job make_job(const Model& model, const TracePlan& plan, const TaskSample& sample) {
  Job job;
  job.prompt = make_prompt(model, sample);
  job.max_new = sample.max_new_tokens == 0 ? plan.max_new : std::min(plan.max_new, sample.max_new_tokens);
  if (sample.max_new_tokens == 0) {
    job.answer = model.tokenize(sample.answers[0], false, false);
    if (static_cast<std::int64_t>(job.answer.size()) > plan.max_new)
      job.answer.resize(static_cast<std::size_t>(plan.max_new));
  }
  job.sample = sample;
  const std::int64_t limit = model.card().context_length;
  if (job.capacity() > limit) {
    throw InputError(
        fmt::format("{}: {} prompt tokens and up to {} of answer, the model's context holds {}; shorten the sample or "
                    "lower max_new",
                    job.sample.id, job.prompt.tokens.size(),
                    job.capacity() - static_cast<std::int64_t>(job.prompt.tokens.size()), limit));
  }
  return job;
}

std::vector<TaskSample> read_all(const TracePlan& plan) {
  std::vector<TaskSample> all;
  std::map<std::string, std::string> files;
  for (const auto& file : plan.tasks) {
    std::vector<TaskSample> samples = read_tasks(file);
    if (plan.limit > 0 && plan.limit < static_cast<std::int64_t>(samples.size()))
      samples.resize(static_cast<std::size_t>(plan.limit));
    for (TaskSample& sample : samples) {
      const auto [taken, is_new] = files.emplace(trace_file_name(sample.id), sample.id);
      if (!is_new)
        throw InputError(fmt::format("{}: the ids \"{}\" and \"{}\" would share the file {}; rename one", file.string(),
                                     taken->second, sample.id, taken->first));
      all.push_back(std::move(sample));
    }
  }
  return all;
}

// What decides the content of a sample's trace.
Json plan_json(const Model& model, const TracePlan& plan) {
  return {{"model", model.card().name}, {"fingerprint", model.card().fingerprint},
          {"max_new", plan.max_new},    {"attention", plan.attention},
          {"queries", plan.queries},    {"codec", plan.codec}};
}

// The folder belongs to the first plan that recorded into it.
void claim_folder(const std::filesystem::path& out, const Json& wanted) {
  const std::filesystem::path file = out / kPlanFile;
  if (!std::filesystem::exists(file)) {
    PartialFile aside(file, PartialFile::IfBusy::wait);
    if (!std::filesystem::exists(file)) {  // nor has another process made it meanwhile
      std::ofstream stream(aside.path());
      stream << wanted.dump(1) << "\n";
      stream.close();
      if (!stream) throw InputError(fmt::format("{}: can't be written to; give another folder", out.string()));
      aside.publish();
      return;
    }
  }
  std::ifstream stream(file);
  const Json found = Json::parse(stream, nullptr, false);
  if (!found.is_object())
    throw InputError(fmt::format("{}: not what `depthkv trace` writes; give another folder", file.string()));
  for (const auto& [key, value] : wanted.items()) {
    if (found.contains(key) && found[key] == value) continue;
    throw InputError(
        fmt::format("{}: the traces there were recorded with {} = {}, this plan has {}; give another folder, or record "
                    "with the same",
                    out.string(), key, found.contains(key) ? found[key].dump() : "nothing", value.dump()));
  }
}

bool is_finished(const std::filesystem::path& file, const std::string& id) {
  if (!std::filesystem::exists(file)) return false;
  try {
    return Trace::open(file).sample().id == id;
  } catch (const Error&) {
    return false;  // damaged: recorded again
  }
}

Sample describe(const Model& model, const Job& job, const std::vector<Token>& answer) {
  Sample sample;
  sample.id = job.sample.id;
  sample.task = job.sample.task;
  sample.metric = job.sample.metric;
  sample.source = job.sample.source;
  sample.license = job.sample.license;
  sample.prompt_text = job.prompt.text;
  sample.answer_text = model.detokenize(answer);
  sample.answer_source = job.answer.empty() ? "generated" : "reference";
  sample.answers = job.sample.answers;
  sample.tokens = job.prompt.tokens;
  sample.tokens.insert(sample.tokens.end(), answer.begin(), answer.end());
  sample.text_offsets = job.prompt.text_offsets;
  sample.segments = job.prompt.segments;
  sample.evidence = job.prompt.evidence;
  return sample;
}

Codec codec_named(const std::string& name) {
  const auto codec = std::ranges::find(kCodecs, name, [](Codec c) { return to_string(c); });
  if (codec == kCodecs.end()) throw InputError(fmt::format("codec is \"{}\", expected zstd, deflate or none", name));
  return *codec;
}

std::int64_t record_one(Model& model, const TracePlan& plan, const Job& job, const std::filesystem::path& file) {
  const auto layers = static_cast<int>(model.card().layers.size());
  const RecordOptions options{parse_layers(plan.attention, layers), plan.queries == "all", codec_named(plan.codec)};
  TraceWriter writer(file, model.card(), job.prompt.segments, job.capacity(), options);
  Recorder recorder(writer, model.card(), job.prompt.segments, options.attention);
  Model::RecordRequest request{job.prompt.tokens, job.answer, job.max_new,
                               std::vector<bool>(static_cast<std::size_t>(layers), true)};
  const std::vector<Token> answer = model.record(request, [&](const LayerBlock& block) { recorder.take(block); });
  recorder.finish();
  const Sample sample = describe(model, job, answer);
  writer.finish(sample);
  return sample.size();
}

}  // namespace

std::vector<bool> parse_layers(const std::string& text, int layers) {
  if (text == "all" || text == "none") return std::vector<bool>(static_cast<std::size_t>(layers), text == "all");
  std::vector<bool> chosen(static_cast<std::size_t>(layers), false);
  std::size_t at = 0;
  while (at <= text.size()) {
    const std::size_t comma = std::min(text.find(',', at), text.size());
    int layer = -1;
    const auto [end, error] = std::from_chars(text.data() + at, text.data() + comma, layer);
    if (error != std::errc() || end != text.data() + comma || layer < 0 || layer >= layers) {
      throw InputError(
          fmt::format("attention is \"{}\", expected all, none, or layers 0 to {} such as 0,3", text, layers - 1));
    }
    chosen[static_cast<std::size_t>(layer)] = true;
    at = comma + 1;
  }
  return chosen;
}

TraceSummary record_traces(Model& model, const TracePlan& plan, const std::filesystem::path& out,
                           const Progress& progress) {
  parse_layers(plan.attention, static_cast<int>(model.card().layers.size()));  // wrong now, not after an hour
  const std::vector<TaskSample> samples = read_all(plan);
  for (const TaskSample& sample : samples) make_job(model, plan, sample);  // so is a prompt that is too long
  std::error_code error;
  std::filesystem::create_directories(out, error);
  if (error)
    throw InputError(fmt::format("{}: can't be made ({}); give another folder", out.string(), error.message()));
  claim_folder(out, plan_json(model, plan));

  remove_stale_partials(out);

  TraceSummary summary;
  const auto started = std::chrono::steady_clock::now();
  const auto total = static_cast<std::int64_t>(samples.size());
  std::deque<const TaskSample*> left;
  for (const TaskSample& sample : samples) left.push_back(&sample);
  std::size_t busy = 0;  // samples in a row that another process is recording
  while (!left.empty()) {
    const TaskSample& sample = *left.front();
    left.pop_front();
    progress("trace", summary.recorded + summary.resumed, total, sample.id);
    const std::filesystem::path file = out / trace_file_name(sample.id);
    if (is_finished(file, sample.id)) {
      ++summary.resumed;
      busy = 0;
      continue;
    }
    try {
      summary.tokens += record_one(model, plan, make_job(model, plan, sample), file);
    } catch (const TraceBusy&) {
      left.push_back(&sample);  // last: by then it is there, or its process is gone
      if (++busy >= left.size()) std::this_thread::sleep_for(kBusyPause);
      continue;
    }
    busy = 0;
    ++summary.recorded;
    write_trace_index(out);
  }
  progress("trace", total, total, "");
  write_trace_index(out);
  summary.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  return summary;
}

}  // namespace depthkv
