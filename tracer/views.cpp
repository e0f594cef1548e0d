// SPDX-License-Identifier: Apache-2.0
// Noised copies of what a trace set was asked, and the model's hidden states on them.
#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "depthkv/error.h"
#include "depthkv/representations.h"
#include "tracer/jobs.h"
#include "tracer/utf8.h"

namespace depthkv {
namespace {

constexpr std::int64_t kLeastPart = 4;  // the last piece of a context counts from 1 / kLeastPart of a whole one

struct Document {
  std::string id;
  std::string task;
  std::string text;
};

// The piece of a sample's context, between code points; nothing beyond its end.
std::optional<Document> piece_of(const Sample& sample, std::int64_t piece, std::int64_t tokens) {
  const Span context = sample.segments.context;
  const std::int64_t begin = context.begin + piece * tokens;
  const std::int64_t end = std::min(begin + tokens, context.end);
  if ((end - begin) * kLeastPart < tokens) return std::nullopt;
  const auto byte_of = [&](std::int64_t token) {
    const auto index = static_cast<std::size_t>(token);
    std::size_t at = index < sample.text_offsets.size() ? static_cast<std::size_t>(sample.text_offsets[index])
                                                        : sample.prompt_text.size();
    while (at < sample.prompt_text.size() && is_continuation(sample.prompt_text[at])) ++at;
    return at;
  };
  const std::size_t from = byte_of(begin);
  return Document{fmt::format("{}.part{}", sample.id, piece), sample.task,
                  sample.prompt_text.substr(from, byte_of(end) - from)};
}

// Evenly over the set, whose order is that of tasks, where it has more samples than documents are wanted.
std::vector<Sample> sources_of(const TraceSet& traces, std::size_t wanted) {
  const std::size_t count = std::min(traces.files.size(), wanted);
  std::vector<Sample> samples;
  for (std::size_t i = 0; i < count; ++i)
    samples.push_back(Trace::open(traces.files[i * traces.files.size() / count]).sample());
  return samples;
}

std::vector<Document> documents_of(const TraceSet& traces, const ViewPlan& plan) {
  const std::vector<Sample> samples = sources_of(traces, static_cast<std::size_t>(plan.documents));
  std::vector<Document> documents;
  for (std::int64_t piece = 0, before = -1; before != static_cast<std::int64_t>(documents.size()); ++piece) {
    before = static_cast<std::int64_t>(documents.size());
    for (const Sample& sample : samples) {
      if (static_cast<std::int64_t>(documents.size()) == plan.documents) return documents;
      if (std::optional<Document> document = piece_of(sample, piece, plan.tokens))
        documents.push_back(std::move(*document));
    }
  }
  if (documents.size() < 2)
    throw InputError(
        fmt::format("{}: the contexts hold {} documents of {} tokens, and two are needed to tell them apart; record "
                    "more samples, or ask for shorter documents",
                    traces.directory.string(), documents.size(), plan.tokens));
  return documents;
}

std::vector<TaskSample> samples_of(const std::vector<Document>& documents, const ViewPlan& plan) {
  std::vector<TaskSample> samples;
  std::uint64_t seed = plan.seed;
  for (const Document& document : documents) {
    for (std::int64_t v = 0; v < plan.views; ++v) {
      TaskSample sample;
      sample.id = fmt::format("{}.view{}", document.id, v);
      sample.task = document.task;
      sample.context = noised(document.text, plan.noise, draw_below(std::size_t{1} << 31U, seed));
      sample.where = sample.id;
      samples.push_back(std::move(sample));
    }
  }
  return samples;
}

}  // namespace

ViewSet record_views(Model& model, const TraceSet& traces, const ViewPlan& plan, const std::filesystem::path& out,
                     const Progress& progress) {
  const std::vector<Document> documents = documents_of(traces, plan);
  const std::vector<TaskSample> samples = samples_of(documents, plan);
  TracePlan recording;
  recording.channels = {Channel::hidden_unit_mean};
  recording.max_prompt = plan.tokens;
  recording.truncate = Truncate::end;
  recording.max_new = 1;
  recording.threads = plan.threads;
  record_samples(model, recording, samples, out, progress);
  ViewSet views{{}, static_cast<std::int64_t>(documents.size()), plan.views};
  for (const TaskSample& sample : samples) views.files.push_back(out / trace_file_name(sample.id));
  return views;
}

}  // namespace depthkv
