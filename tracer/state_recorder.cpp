// SPDX-License-Identifier: Apache-2.0
#include "tracer/state_recorder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <thread>

#include "depthkv/error.h"
#include "kernels/parallel.h"
#include "tracer/index.h"
#include "tracer/state_metrics.h"

namespace depthkv {
namespace {

constexpr auto kStageCount = static_cast<std::int64_t>(kStages.size());

std::int64_t series_of(int layer, Stage stage) { return layer * kStageCount + static_cast<std::int64_t>(stage); }

float cosine(std::span<const float> a, std::span<const float> b) {
  double product = 0;
  double squares[2] = {0, 0};
  for (std::size_t i = 0; i < a.size(); ++i) {
    product += static_cast<double>(a[i]) * static_cast<double>(b[i]);
    squares[0] += static_cast<double>(a[i]) * static_cast<double>(a[i]);
    squares[1] += static_cast<double>(b[i]) * static_cast<double>(b[i]);
  }
  const double length = std::sqrt(squares[0]) * std::sqrt(squares[1]);
  return length > 0 ? static_cast<float>(product / length) : 0.0F;
}

}  // namespace

bool is_of_states(Channel channel) {
  return channel == Channel::hidden_mean || channel == Channel::hidden_unit_mean ||
         channel == Channel::hidden_scalars || channel == Channel::attention_cosines;
}

std::int64_t waiting_bytes(const std::set<Channel>& channels, const ModelCard& model, std::int64_t prompt_end) {
  const bool reduced = std::ranges::any_of(
      channels, [](Channel channel) { return is_of_states(channel) && channel != Channel::attention_cosines; });
  const auto rows = static_cast<std::int64_t>(model.layers.size()) * kStageCount * prompt_end;
  return reduced ? rows * model.embedding * static_cast<std::int64_t>(sizeof(float)) : 0;
}

int summary_threads(const ModelCard& model, std::int64_t rows, int threads) {
  constexpr double kMostBytes = 2.0 * (std::int64_t{1} << 30);
  const auto size = static_cast<double>(std::min(rows, model.embedding));
  const int most = threads > 0 ? threads : static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  return static_cast<int>(std::clamp(kMostBytes / std::max(1.0, 2 * sizeof(double) * size * size), 1.0, 1.0 * most));
}

StateRecorder::StateRecorder(TraceWriter& writer, const ModelCard& model, std::int64_t prompt_end, Options options)
    : writer_(writer), model_(model), prompt_end_(prompt_end), options_(std::move(options)) {
  if (waiting_bytes(options_.channels, model, prompt_end) > 0)
    spool_ = std::make_unique<StateSpool>(options_.folder, prompt_end, model.embedding);
  if (records(Channel::attention_cosines))
    cosines_.assign(model.layers.size(), std::vector<float>(to_size(prompt_end * 2)));
}

bool StateRecorder::wanted() const { return std::ranges::any_of(options_.channels, is_of_states); }

void StateRecorder::take(const StateBlock& block) {
  if (block.first < 0 || block.first + block.rows > prompt_end_ ||
      block.data.size() != to_size(block.rows * model_.embedding))
    throw Error(fmt::format("{} numbers for the hidden states {} to {} came, expected {} each of the first {}",
                            block.data.size(), block.first, block.first + block.rows, model_.embedding, prompt_end_));
  if (!cosines_.empty()) add_cosines(block);
  if (spool_ && block.layer >= 0) spool_->write(series_of(block.layer, block.stage), block.first, block.data);
}

// A layer's input is what the layer before it left, and comes first.
void StateRecorder::add_cosines(const StateBlock& block) {
  if (block.stage == Stage::mlp) input_.assign(block.data.begin(), block.data.end());
  if (block.stage != Stage::att && block.stage != Stage::res) return;
  const std::size_t column = block.stage == Stage::att ? 0 : 1;
  const std::size_t width = to_size(model_.embedding);
  std::vector<float>& cosines = cosines_[to_size(block.layer)];
  parallel_for(block.rows, options_.threads, [&](std::int64_t row) {
    const auto at = [&](std::span<const float> rows) { return rows.subspan(to_size(row) * width, width); };
    cosines[to_size(block.first + row) * 2 + column] = cosine(at(input_), at(block.data));
  });
}

void StateRecorder::finish() {
  for (std::size_t l = 0; l < cosines_.size(); ++l)
    writer_.write_whole(Channel::attention_cosines, static_cast<int>(l), cosines_[l]);
  if (spool_) write_summaries();
  spool_.reset();
}

void StateRecorder::write_summaries() {
  const auto layers = static_cast<std::int64_t>(model_.layers.size());
  std::vector<StateSummary> summaries(to_size(layers * kStageCount));
  const int threads = summary_threads(model_, prompt_end_, options_.threads);
  parallel_for(layers * kStageCount, threads, [&](std::int64_t series) {
    const auto read = [&](std::int64_t first, std::span<float> out) { spool_->read(series, first, out); };
    summaries[to_size(series)] =
        summarise_states(read, prompt_end_, model_.embedding, records(Channel::hidden_scalars));
  });
  for (int layer = 0; layer < static_cast<int>(layers); ++layer) {
    std::vector<float> mean, unit_mean, scalars;
    for (const Stage stage : kStages) {
      const StateSummary& summary = summaries[to_size(series_of(layer, stage))];
      mean.insert(mean.end(), summary.mean.begin(), summary.mean.end());
      unit_mean.insert(unit_mean.end(), summary.unit_mean.begin(), summary.unit_mean.end());
      scalars.insert(scalars.end(), summary.scalars.begin(), summary.scalars.end());
    }
    if (records(Channel::hidden_mean)) writer_.write_whole(Channel::hidden_mean, layer, mean);
    if (records(Channel::hidden_unit_mean)) writer_.write_whole(Channel::hidden_unit_mean, layer, unit_mean);
    if (records(Channel::hidden_scalars)) writer_.write_whole(Channel::hidden_scalars, layer, scalars);
  }
}

}  // namespace depthkv
