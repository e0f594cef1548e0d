// SPDX-License-Identifier: Apache-2.0
#include "cli/dump.h"

#include <fmt/format.h>

#include "depthkv/error.h"
#include "replay/labels.h"

namespace depthkv {
namespace {

std::filesystem::path folder_of(const std::filesystem::path& file) {
  return std::filesystem::weakly_canonical(std::filesystem::absolute(file)).parent_path();
}

std::shared_ptr<ScoreFileWriter> make_writer(const std::filesystem::path& file, const TraceSet& traces, Cut cut) {
  if (folder_of(file) == std::filesystem::weakly_canonical(std::filesystem::absolute(traces.directory)))
    throw InputError(
        fmt::format("{}: lies among the traces and would be taken for one; choose another folder", file.string()));
  return std::make_shared<ScoreFileWriter>(file, Trace::open(traces.files.front()).model(), cut);
}

ScoreSource source_of(const ResultTable& table, std::string label, PolicyIndex policy, std::size_t columns) {
  ScoreSource source{std::move(label), {}};
  const std::vector<std::string> fields = policy_fields(table, policy);
  for (std::size_t i = 0; i < columns; ++i) source.attributes.emplace_back(policy_columns()[i], fields[i]);
  return source;
}

}  // namespace

Dump::Dump(const DumpFiles& files, const TraceSet& traces, Cut cut) {
  if (!files.scores.empty()) scores_ = make_writer(files.scores, traces, cut);
  if (files.kept.empty()) return;
  kept_ = files.kept == files.scores ? scores_ : make_writer(files.kept, traces, cut);
}

ReplayWatch Dump::watch() const {
  ReplayWatch watch;
  if (scores_) {
    watch.scores = [this](const Sample& sample, const ResultTable& table, std::size_t ranker, int layer,
                          const View& scores) {
      ScoreSource source = source_of(table, ranker_label(table, ranker), {ranker, 0, 0}, kRankerColumns);
      // Replay shows the scores of the first budget.
      if (table.policies.rankers[ranker].scorer.uses_keep)
        source.attributes.emplace_back("keep", fmt::format("{}", table.plan.keep.front()));
      scores_->add_scores(sample.id, source, layer, scores);
    };
  }
  if (kept_) {
    watch.kept = [this](const Sample& sample, const ResultTable& table, std::size_t policy, std::size_t keep, int layer,
                        const std::vector<std::vector<std::uint32_t>>& kept) {
      const PolicyIndex index = table.policy(policy);
      const std::string label =
          fmt::format("{}, {}, {}", ranker_label(table, index.ranker), layer_label(table, index.layer_allocator),
                      head_label(table, index.head_allocator));
      kept_->add_kept(sample.id, source_of(table, label, index, policy_columns().size()), table.plan.keep[keep], layer,
                      kept);
    };
  }
  return watch;
}

void Dump::finish() {
  if (scores_) scores_->finish();
  if (kept_ && kept_ != scores_) kept_->finish();
}

}  // namespace depthkv
