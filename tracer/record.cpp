// SPDX-License-Identifier: Apache-2.0
#include "depthkv/record.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <deque>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "depthkv/error.h"
#include "tracer/jobs.h"
#include "tracer/recorder.h"
#include "tracer/repeat_recorder.h"
#include "tracer/state_recorder.h"
#include "traces/partial.h"

namespace depthkv {
namespace {

constexpr const char* kPlanFile = "plan.json";
constexpr std::chrono::milliseconds kBusyPause{200};

std::vector<std::string> names_of(const std::set<Channel>& channels) {
  std::vector<std::string> names;
  for (const Channel channel : channels) names.emplace_back(to_string(channel));
  return names;
}

// What decides the content of a sample's trace.
nlohmann::ordered_json plan_json(const Model& model, const TracePlan& plan) {
  return {{"model", model.card().name},
          {"fingerprint", model.card().fingerprint},
          {"max_new", plan.max_new},
          {"channels", names_of(plan.channels)},
          {"attention", plan.attention},
          {"queries", plan.queries},
          {"softmax", plan.engine_softmax ? "engine" : "recomputed"},
          {"codec", plan.codec},
          {"truncate", to_string(plan.truncate)},
          {"max_prompt", plan.truncate == Truncate::error ? 0 : plan.max_prompt}};  // else it only refuses
}

// The folder belongs to the first plan that recorded into it.
void claim_folder(const std::filesystem::path& out, const nlohmann::ordered_json& wanted) {
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
  const nlohmann::ordered_json found = nlohmann::ordered_json::parse(stream, nullptr, false);
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

Sample describe(const Model& model, const TraceJob& job, const std::vector<Token>& answer) {
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
  sample.truncated = job.prompt.truncated;
  sample.answer_limit = job.answer.empty() ? job.max_new : 0;
  return sample;
}

// Whether the model would answer the same under the bound of today: always where it ended the answer itself.
bool holds_under(std::int64_t max_new, const Sample& found) {
  const std::int64_t length = found.size() - found.segments.prompt_end;
  return length == max_new || (length < max_new && length < found.answer_limit);
}

// A file that is damaged, of another engine or device, or of a sample that has changed since, is recorded again.
bool is_finished(const Model& model, const TraceJob& job, const std::filesystem::path& file) {
  if (!std::filesystem::exists(file)) return false;
  try {
    const Trace trace = Trace::open(file);
    if (!same_model(trace.model(), model.card())) return false;
    const Sample& found = trace.sample();
    const std::span<const Token> tokens = found.tokens;
    const auto answer = tokens.subspan(static_cast<std::size_t>(found.segments.prompt_end));
    Sample wanted = describe(model, job, {answer.begin(), answer.end()});
    wanted.answer_text = found.answer_text;  // a zero byte at its end doesn't survive the file
    wanted.answer_limit = found.answer_limit;
    return found == wanted &&
           (job.answer.empty() ? holds_under(job.max_new, found) : std::ranges::equal(job.answer, answer));
  } catch (const Error&) {
    return false;
  }
}

Codec codec_named(const std::string& name) {
  const auto codec = std::ranges::find(kCodecs, name, [](Codec c) { return to_string(c); });
  if (codec == kCodecs.end()) throw InputError(fmt::format("codec is \"{}\", expected zstd, deflate or none", name));
  return *codec;
}

}  // namespace

std::int64_t record_one(Model& model, const TracePlan& plan, const TraceJob& job, const std::filesystem::path& file) {
  const auto layers = static_cast<int>(model.card().layers.size());
  const std::vector<bool> matrices = parse_layers(plan.attention, layers);
  const auto wanted = [&](Channel channel) { return plan.channels.contains(channel); };
  TraceWriter writer(file, model.card_for(job.reach()), job.prompt.segments, job.capacity(),
                     {.attention = matrices,
                      .all_queries = plan.queries == "all",
                      .engine_softmax = plan.engine_softmax,
                      .codec = codec_named(plan.codec),
                      .threads = plan.threads,
                      .channels = plan.channels});
  Recorder recorder(writer, model, job.prompt.segments, {plan.channels, matrices, plan.threads});
  StateRecorder states(writer, model.card(), job.prompt.segments.prompt_end,
                       {plan.channels, file.parent_path(), plan.threads});
  std::optional<RepeatRecorder> repeats;
  if (wanted(Channel::repeat_max))
    repeats.emplace(writer, model.card(), job.prompt.segments, job.repetition, plan.threads);
  const std::vector<bool> rows = wanted(Channel::column_sums) ? std::vector<bool>(matrices.size(), true) : matrices;
  const bool any_rows = std::ranges::find(rows, true) != rows.end();
  Model::RecordRequest request{.prompt = job.prompt.tokens,
                               .answer = job.answer,
                               .max_new = job.max_new,
                               .attention = plan.engine_softmax ? rows : std::vector<bool>(),
                               .unrotated_queries = wanted(Channel::query_mean) || wanted(Channel::query_second_moment),
                               .cached_keys = any_rows && !plan.engine_softmax,
                               .on_device = std::ranges::find(matrices, true) == matrices.end(),
                               .passages = job.repetition.passages};
  if (states.wanted()) request.states = [&](const StateBlock& block) { states.take(block); };
  if (repeats)
    request.passage_sink = [&](std::size_t passage, const LayerBlock& block) { repeats->take(passage, block); };
  const std::vector<Token> answer = model.record(request, [&](const LayerBlock& block) { recorder.take(block); });
  recorder.finish();
  states.finish();
  if (repeats) repeats->finish();
  const Sample sample = describe(model, job, answer);
  writer.finish(sample);
  return sample.size();
}

std::set<Channel> parse_channels(const std::vector<std::string>& names, const std::string& where) {
  const std::set<Channel> all = preset_channels(Preset::full);
  std::set<Channel> channels;
  for (const std::string& name : names) {
    const auto found = std::ranges::find(all, name, [](Channel channel) { return to_string(channel); });
    if (found == all.end()) {
      throw InputError(fmt::format("{}: no channel \"{}\"{}; there are {}", where, name,
                                   suggestion(name, names_of(all)), fmt::join(names_of(all), ", ")));
    }
    channels.insert(*found);
  }
  return channels;
}

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
  return record_samples(model, plan, read_samples(plan), out, progress);
}

TraceSummary record_samples(Model& model, const TracePlan& plan, const std::vector<TaskSample>& samples,
                            const std::filesystem::path& out, const Progress& progress) {
  parse_layers(plan.attention, static_cast<int>(model.card().layers.size()));  // wrong now, not after an hour
  for (const TaskSample& sample : samples) make_job(model, plan, sample);      // so is a prompt that is too long
  std::error_code error;
  std::filesystem::create_directories(out, error);
  if (error)
    throw InputError(fmt::format("{}: can't be made ({}); give another folder", out.string(), error.message()));
  claim_folder(out, plan_json(model, plan));

  remove_stale_partials(out);
  if (plan.channels.contains(Channel::output_projection))
    write_trace_weights(out, model.card(), [&](int layer) { return model.output_projection(layer); });

  TraceSummary summary;
  const auto started = std::chrono::steady_clock::now();
  const auto total = static_cast<std::int64_t>(samples.size());
  std::deque<const TaskSample*> left;
  for (const TaskSample& sample : samples) left.push_back(&sample);
  std::size_t busy = 0;  // samples in a row that another process is recording
  const auto count = [&](const TraceJob& job, std::int64_t& among) {
    ++among;
    summary.truncated += job.prompt.truncated > 0 ? 1 : 0;
    busy = 0;
  };
  while (!left.empty()) {
    const TaskSample& sample = *left.front();
    left.pop_front();
    progress("trace", summary.recorded + summary.resumed, total, sample.id);
    const std::filesystem::path file = out / trace_file_name(sample.id);
    const TraceJob job = make_job(model, plan, sample);
    if (is_finished(model, job, file)) {
      count(job, summary.resumed);
      continue;
    }
    try {
      summary.tokens += record_one(model, plan, job, file);
    } catch (const TraceBusy&) {
      left.push_back(&sample);  // last: by then it is there, or its process is gone
      if (++busy >= left.size()) std::this_thread::sleep_for(kBusyPause);
      continue;
    }
    count(job, summary.recorded);
    write_trace_index(out);
  }
  progress("trace", total, total, "");
  write_trace_index(out);
  summary.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  return summary;
}

}  // namespace depthkv
